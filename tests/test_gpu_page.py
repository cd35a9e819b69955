"""The tables of docs/gpu.md say what benchmarks/results/gpu.json says."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_runs import ROOT

MEASURED = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
HEADS, WAYS, STEP, BEAMS, JOB = (MEASURED["parts"][part] for part in ("heads", "head_ways", "step", "beams", "pipeline"))
BEFORE = MEASURED["first_call"]
PAGE = (ROOT / "docs" / "gpu.md").read_text()
SIZES = ("32000", "151936")
LIGER, LARGE_LIGER = "Liger CE", "Liger CE, chunks 16 times as large"


def variants(lines: list[dict[str, Any]], vocabulary: str) -> dict[str, dict[str, Any]]:
    return {line["variant"]: line for line in lines if "variant" in line and str(line["shape"][2]) == vocabulary}


def gradient_errors() -> dict[str, list[float]]:
    """Of every head at both sizes, the larger of both gradients' errors."""
    found: dict[str, list[float]] = {}
    for line in HEADS["lines"]:
        if "parity" in line:
            found.setdefault(line["parity"], []).append(max(line["hidden"], line["weight"]))
    return found


def ways_rows() -> Iterator[str]:
    """What the factor of the loss costs in time, and the larger error that it leaves of the gradient."""
    times = [variants(WAYS["lines"], size) for size in SIZES]
    for name in ("CE", "CE times 1.003", "CE, scaled by torch", "CE times 1.003, scaled by torch", "CE, half logits"):
        cells = " | ".join(f"{x[f'raw2s {name}']['ms']:.2f} ms" for x in times)
        error = max(max(line["hidden"], line["weight"]) for line in WAYS["lines"] if line.get("way") == name)
        yield f"| {name} | {cells} | {error:.2e} |"


def job_rows() -> Iterator[str]:
    """Seconds of the main job's stages, the least and the most of those of a kind."""
    kinds = {
        "teachers": "teacher/", "ceiling": "ceiling", "beams": "beams/", "label": "label", "student": "student/", "pairs": "pairs/",
        "cdpo": "cdpo/", "tests": "test/",
    }  # fmt: skip
    for kind, prefix in kinds.items():
        spent = sorted({seconds for name, seconds in JOB["stage_seconds"].items() if name.startswith(prefix)})
        yield f"| {kind} | {'-'.join(str(seconds) for seconds in dict.fromkeys((spent[0], spent[-1])))} |"


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def heads_rows() -> Iterator[str]:
    small, large = (variants(HEADS["lines"], size) for size in SIZES)
    for name in small:
        cells = [f"{x['ms']:.2f} ms, {x['extra_mib']:,.0f} MiB" for x in (small[name], large[name])]
        yield f"| {name} | {' | '.join(cells)} |"
    for name, values in gradient_errors().items():
        if name != "autograd EDL in float64":
            yield f"| {name} | {' | '.join(f'{value:.3e}' for value in values)} |"
    for name in (LIGER, LARGE_LIGER):
        ratios = (x["raw2s CE"]["ms"] / x[name]["ms"] for x in (small, large))
        yield f"| raw2s CE / {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |"


def bar_rows() -> Iterator[str]:
    both = list(HEADS["bars"].values())
    for name, bar in both[0].items():
        cells = " and ".join(f"{x[name]['measured']:.3f}" for x in both)
        yield f"| {name} | ≤ {bar['bar']} | {cells} | {verdict(all(x[name]['met'] for x in both))} |"
    for label, halved in (("fp32", False), ("bf16", True)):
        worst = max(max(v) for k, v in gradient_errors().items() if k.startswith(("CE", "EDL")) and ("bf16" in k) == halved)
        yield f"| gradient error, {label} weight gradient | ≤ 3e-3 | {worst:.3e} | {verdict(worst <= 3e-3)} |"
    bars, seven = STEP["bars"], STEP["7B, 6 x 2048, edl"]
    for name, key, sign in (
        ("1.1 B step, times faster than 298 ms", "step_times_measured_before", "≥"),
        ("1.1 B step, times faster than the dense path in this run", "step_times_today", "≥"),
        ("1.1 B step, MFU", "step_mfu", "≥"),
        ("fresh shapes / fixed, a token", "fresh_over_fixed_a_token", "≤"),
        ("7B peak, GiB", "seven_peak_gib", "≤"),
        ("scoring, times faster than 197 ms", "scoring_times_measured_before", "≥"),
        ("scoring, times faster than the dense path in this run", "scoring_times_today", "≥"),
    ):
        bar, value = bars[key]["bar"], bars[key]["is"]
        met = value >= bar if sign == "≥" else value <= bar
        yield f"| {name} | {sign} {bar} | {value:.3f} | {verdict(met)} |"
    yield f"| 7B MFU | ≥ 0.38 | {seven['mfu']:.3f} | {verdict(seven['mfu'] >= 0.38)} |"
    yield f"| 7B MFU, goal | ≥ 0.57 | {bars['seven_mfu']['is']:.3f} | {verdict(bars['seven_mfu']['is'] >= 0.57)} |"
    yield f"| 7B tokens a second | ≥ 9,300 | {seven['tokens_per_second']:,.0f} | {verdict(seven['tokens_per_second'] >= 9300)} |"
    times = BEAMS["beams"]
    for name, key in (("beams, times faster than 0.80 s", "times_faster_than_0.80_s"),
                      ("beams, times faster than launched steps in this run", "times_faster_than_launched")):  # fmt: skip
        yield f"| {name} | ≥ 3 | {times[key]:.2f} | {verdict(times[key] >= 3)} |"


def training_rows() -> Iterator[str]:
    for found in (STEP, BEFORE["step"]):
        for name, x in found.items():
            if "mfu" in x and "peak_gib" in x:
                yield f"| {name} | {x['ms']:,.1f} | {x['mfu']:.1%} | {x['tokens_per_second']:,.0f} | {x['peak_gib']:.1f} |"


def decoding_rows() -> Iterator[str]:
    for found in (STEP, BEFORE["step"]):
        for name, x in found.items():
            if "error_nats_mean" in x:
                yield f"| {name} | {x['ms']:,.1f} | {x['times_today']:.2f} | {x['error_nats_mean']:.3f} | {x['error_nats_max']:.3f} |"
    for found in (BEAMS["beams"], BEFORE["beams"]["beams"]):
        for name, value in found["seconds"].items():
            yield f"| {name} | {value:.3f} s |"
    labeling = BEAMS["labeling"]
    for name, x in labeling["seconds"].items():
        yield f"| {name} | {x['beams']:.3f} s | {x['scores']:.3f} s | {labeling['prompts_per_second'][name]:.1f} |"
    agree = BEAMS["beams_agree"]
    for name in ("fp32", "bf16", "replayed_bf16_and_fp32", "launched_bf16_and_fp32"):
        yield f"| {name} | {agree[f'candidates_shared_{name}']:.1%} |"


@pytest.mark.parametrize("rows", [heads_rows, ways_rows, bar_rows, training_rows, decoding_rows, job_rows])
def test_every_measured_row_is_on_the_page(rows):
    page = set((ROOT / "docs" / "gpu.md").read_text().splitlines())
    assert sorted(set(rows()) - page) == []


def test_bars_say_what_was_measured():
    for size, bars in zip(SIZES, HEADS["bars"].values(), strict=True):
        found = variants(HEADS["lines"], size)
        ours, eager = found["raw2s EDL"]["ms"], found["eager CE"]["ms"]
        assert bars["EDL / eager CE"]["measured"] == pytest.approx(ours / eager, abs=1e-3)
        assert all(bar["met"] == (bar["measured"] <= bar["bar"]) for bar in bars.values())
    dense, blocks = (STEP[f"step, {name} edl"]["ms"] for name in ("dense", "blocks + compile"))
    assert STEP["bars"]["step_times_today"]["is"] == pytest.approx(dense / blocks)
    assert STEP["bars"]["seven_mfu"]["is"] == STEP["7B, 6 x 2048, edl"]["mfu"]
    for call in (*MEASURED["parts"].values(), BEFORE):
        assert call["environment"].keys() >= {"card", "date", "commit", "torch", "triton", "transformers"}


def test_the_page_says_when_and_with_what():
    page = (ROOT / "docs" / "gpu.md").read_text()
    for part in MEASURED["parts"].values():
        assert part["environment"]["date"] in page and part["environment"]["commit"] in page
        assert part["environment"]["transformers"] in page and part["environment"]["torch"] in page
    own = JOB["environment"]
    assert (
        f"(transformers {own['transformers']}, DeepSpeed {own['deepspeed']},\nRay {own['ray']}) in {JOB['part_seconds']:.0f} s"
        in page
    )
    assert f": {len(JOB['stage_seconds'])} stages" in page
    assert ("so all scores are 0" in page) == (not any(score for _, score in JOB["scores"]))


def test_the_other_pages_agree():
    losses, training = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("losses", "training"))
    found = [variants(HEADS["lines"], size) for size in SIZES]
    for ours, other in (("raw2s EDL", "eager CE"), ("raw2s EDL", "autograd EDL"), ("raw2s CE", LARGE_LIGER)):
        assert " and ".join(f"{x[ours]['ms'] / x[other]['ms']:.2f}" for x in found) in losses
    for name in ("blocks + compile edl", "fixed shape on the graph for any", "fresh shapes"):
        assert f"{STEP[f'step, {name}']['ms']:.1f} ms" in training
    for name in ("dense edl", "blocks edl", "dense + compile edl", "blocks + liger edl", "blocks + compile edl"):
        x = BEFORE["step"][f"step, {name}"]
        assert re.search(rf"\| \**{x['ms']:.1f}\** \| {100 * x['mfu']:.1f} % \| {x['peak_gib']:.1f} \|", training)


def test_what_was_learned_is_the_files():
    demo = json.loads((ROOT / "benchmarks" / "results" / "demo_tiny.json").read_text())["results"]
    found = MEASURED["parts"]["learning"]
    (teacher, ceiling, student) = (score for _, score in found["scores"])
    on_cpus = next(own["score"] for own in demo["teachers"] if own["name"] == found["scores"][0][0])
    assert f"| teacher gpt-neox | {teacher:.3f} | {on_cpus:.3f} |" in PAGE
    assert f"| ceiling | {ceiling:.3f} | {demo['ceiling']['score']:.3f} |" in PAGE
    assert f"| Bayesian student of that teacher alone | {student:.3f} | not run |" in PAGE
    assert abs(teacher - on_cpus) < 0.02 and f"to {abs(ceiling - demo['ceiling']['score']):.3f}, the same ceiling" in PAGE
    assert f"{found['part_seconds']:.0f} s. The demo's other settings" in PAGE and found["environment"]["commit"] in PAGE
