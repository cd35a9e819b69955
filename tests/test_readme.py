"""The tables of the README and of docs/demo.md, labeling.md and training.md are those of the benchmark files."""

import json
import re
from statistics import median

import pytest
import torch
import yaml
from tiny_runs import ROOT, tiny_run
from transformers import LlamaConfig, LlamaForCausalLM

from raw2s.config import parse_config
from raw2s.methods import LOSSES, METHODS, PREFERENCE_LOSSES
from raw2s.pipeline.rules import trainings_of
from raw2s.results import Results
from raw2s.tuning.reading import load_sweeps

README = (ROOT / "README.md").read_text()
DEMO = (ROOT / "docs" / "demo.md").read_text()
LABELING = (ROOT / "docs" / "labeling.md").read_text()


def cells(results: dict) -> list[str]:
    """Every score with its interval, and every PGR with its own, as the pages write them."""
    systems = [*results["teachers"], results["ceiling"], *results["students"]]
    written = [f"{s['score']:.3f} [{s['ci95'][0]:.3f}, {s['ci95'][1]:.3f}]" for s in systems]
    return written + [f"{s['pgr']:.3f} [{s['pgr_ci95'][0]:.3f}, {s['pgr_ci95'][1]:.3f}]" for s in results["students"]]


@pytest.mark.parametrize("name", ["demo", "demo_classification"])
def test_every_figure_of_the_demo_is_in_a_benchmark_file(name):
    measured = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    for results in [found for key, found in measured.items() if key.startswith("results")]:
        for cell in cells(results):
            assert cell in DEMO, f"{cell} of {name} is not in docs/demo.md"


def test_the_demo_over_eight_seeds_is_as_its_page_says():
    results = Results.model_validate_json((ROOT / "benchmarks" / "results" / "demo_seeds.json").read_text())
    assert results.seeds == [*range(1, 9)] and results.ceiling is not None
    section = DEMO[DEMO.index("**Over eight seeds**") :]
    for system in (*results.teachers, results.ceiling):
        assert f"| {system.score:.3f} ± {system.standard_error:.3f} | | |" in section
    of_seed = zip(*(teacher.per_seed for teacher in results.teachers), strict=True)
    best = [max(scores) for scores in of_seed]
    for student in results.students:
        pgr, over = (
            f"{value:{sign}.3f} [{low:.3f}, {high:.3f}]"
            for sign, value, (low, high) in (
                ("", student.pgr, student.pgr_ci95),
                ("+", student.over_best, student.over_best_ci95),
            )
        )
        assert f"| {student.score:.3f} ± {student.standard_error:.3f} | {pgr} | {over} |" in section
        assert student.over_best_p is not None and student.over_best_p < 0.001
        assert all(own > other for own, other in zip(student.per_seed, best, strict=True)), "in every one of the eight seeds"
    first = results.students[0].per_seed
    assert f"anything from {min(first):.3f} to {max(first):.3f}" in section
    added = results.differences[0]
    low, high = (-end for end in reversed(added.ci95))
    assert f"cDPO adds {-added.difference:+.3f} [{low:.3f}, {high:.3f}] to the student (p {added.p_holm:.3f})" in section


@pytest.mark.parametrize("name", ["scenario", "slots"])
def test_the_grids_of_the_readme_are_the_benchmarks(name):
    results = Results.model_validate_json((ROOT / "benchmarks" / "results" / f"grid_{name}.json").read_text())
    assert results.ceiling is not None
    for system in (*results.teachers, results.ceiling):
        assert f"| {system.score:.3f} ± {system.standard_error:.3f} | | |" in README
    for student in (student for student in results.students if student.aux and student.confidence):
        figures = [(student.pgr, student.pgr_ci95, ""), (student.over_best, student.over_best_ci95, "+")]
        cells = [f"{value:{sign}.3f} [{low:.3f}, {high:.3f}]" for value, (low, high), sign in figures]
        assert " | ".join([f"{student.score:.3f} ± {student.standard_error:.3f}", *cells]) in README, student.label


def test_what_a_run_ends_with_is_what_it_prints():
    steps = json.loads((ROOT / "benchmarks" / "results" / "first_hour.json").read_text())["steps"]
    printed = next(step["output"] for step in steps if step["command"] == "raw2s demo")
    shown = README[README.index("\nreport ") :].partition("\n```")[0].strip().splitlines()
    assert [line.split()[0] for line in shown] == [line.split()[0] for line in printed[printed.index("") + 1 :]]


def test_a_fourth_teacher_costs_what_the_page_says_and_generates_alone():
    section = LABELING[LABELING.index("## One more teacher") :]
    measured = json.loads((ROOT / "benchmarks" / "results" / "one_more_teacher.json").read_text())
    three, four = measured["three"], measured["four"]
    rows = {f"`{name}`": (three["ran"].get(name), seconds) for name, seconds in four["ran"].items()}
    rows["the whole command"] = three["seconds"], four["seconds"]
    for name, (before, after) in rows.items():
        assert f"| {name} | {'' if before is None else f'{before:.1f} '}| {after:.1f} |" in section
    assert section.count("\n| ") == len(rows) + 1, "a row that no measurement has"
    assert [name for name in four["ran"] if name.startswith(("teacher/", "beams/"))] == ["teacher/qwen2", "beams/qwen2"]
    assert (
        f"all {four['candidates']:,} candidates, the other three only the {four['candidates'] - three['candidates']:,}" in section
    )


def test_the_student_of_own_data_beats_every_labeler_as_the_page_says():
    measured = json.loads((ROOT / "benchmarks" / "results" / "own_data.json").read_text())
    student = measured["student"]
    assert f"{student['accuracy']:.3f} ± {student['standard_error']:.3f}" in LABELING
    for name, own in measured["labelers"].items():
        low, high = own["over_ci95"]
        assert (
            f"| {own['accuracy']:.3f} | {own['student_there']:.3f} | {own['over']:+.3f} [{low:.3f}, {high:.3f}] |" in LABELING
        ), name
        assert own["over"] > 0 and own["p_holm"] < 0.05


def test_the_sweeps_of_the_demo_are_the_benchmarks():
    for sweep in json.loads((ROOT / "benchmarks" / "results" / "sweep_demo.json").read_text()).values():
        config = sweep["command"].split()[-1]
        said = f"`{config}`: {sweep['trials']} trials, {sweep['statuses'].get('stopped', 0)} stopped early"
        assert f"{said}, judged on devel; {sweep['seconds']:.0f} s" in DEMO
        for cell in cells(sweep["results"]):
            assert cell in DEMO, f"{cell} of {config} is not in docs/demo.md"


PAGES = ["README.md", "docs/labeling.md", "docs/training.md", "docs/architecture.md"]
EXAMPLES = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition("\n")[0])
def test_every_yaml_example_is_a_config_of_today(example):
    config = parse_config({**tiny_run(ROOT), **yaml.safe_load(example)})
    for _, model, use, training in trainings_of(config):
        assert not model.num_gpus or training.gpus_per_worker, f"{use} runs without the GPU that {model.model} labels on"


def test_the_sweeps_on_their_page_are_read(tmp_path):
    found = []
    for example in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL):
        tree = yaml.safe_load(example)
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree | {"base": str(ROOT / "configs" / tree["base"])}))
        found.append([len(sweep.knobs) for sweep in load_sweeps(tmp_path / "sweep.yaml", [])])
    assert found == [[3], [2, 3, 1]]


SCIQ = json.loads((ROOT / "benchmarks" / "results" / "sciq.json").read_text())
NAMES = {"mean": "mean of the probabilities", "majority": "majority vote", "dawid_skene": "Dawid-Skene", "mace": "MACE"}


@pytest.mark.parametrize("way", SCIQ["sets"]["seed0_xent"]["ways"])
def test_the_table_of_real_teachers_is_the_benchmarks(way):
    measured = [ways["ways"][way] for ways in SCIQ["sets"].values()]
    cells = [
        f"{m['accuracy']['mean']:.3f} [{m['accuracy']['middle95'][0]:.3f}, {m['accuracy']['middle95'][1]:.3f}]" for m in measured
    ]
    difference = measured[-1]["difference_to_best"]
    row = f"| {NAMES.get(way, way)} | {' | '.join(cells)} | {difference['mean']:+.4f} ({difference['least']:+.4f}) |"
    assert row in LABELING


def test_the_table_of_temperatures_is_the_benchmarks():
    for name, title in (("seed1_xent", "seed 1"), ("seed1_logconf", "collapsed set")):
        for model, own in SCIQ["sets"][name]["calibration"].items():
            pairs = [f"{own['before'][key]['mean']:.3f} → {own['after'][key]['mean']:.3f}" for key in ("nll", "brier", "ece")]
            assert f"| {model}, {title} | {own['temperature']['mean']:.2f} | {' | '.join(pairs)} |" in LABELING


def test_a_collapsed_teacher_does_not_drag_the_fitted_weights_down():
    fitted, calibrated = "devel-fitted weights (NLL)", "temperature, then devel-fitted weights (NLL)"
    for measured in SCIQ["sets"].values():
        assert measured["ways"][fitted]["difference_to_best"]["mean"] >= -0.005
        assert measured["ways"][calibrated]["difference_to_best"]["least"] >= -0.005
        by_nll, by_accuracy = (
            measured["ways"][f"devel-fitted weights ({kind})"]["accuracy"]["mean"] for kind in ("NLL", "accuracy")
        )
        assert by_nll > by_accuracy
        assert measured["ways"]["mace"]["accuracy"]["mean"] > measured["ways"]["majority"]["accuracy"]["mean"]


def test_the_ray_tax_is_within_its_bar_and_said_as_measured():
    tax = json.loads((ROOT / "benchmarks" / "results" / "labeling.json").read_text())["ray_tax"]["results"]
    section = " ".join(LABELING[LABELING.index("## How fast") :].split())
    for prompts, rounds in tax["prompts"].items():
        process = [min(own["wall_seconds"] for name, own in each["runs"].items() if name != "ray") for each in rounds]
        assert min(process) >= 60, "the bar is for work of a minute or more"
        assert tax["tax_by_wall_time"][prompts]["worst"] <= 1.10
        by_cpu = f"{median(each['tax_by_cpu_time'] for each in rounds):.2f}"
        said = [f"{int(prompts):,} prompts", *(f"{value:.2f}" for value in tax["tax_by_wall_time"][prompts].values()), by_cpu]
        assert not [figure for figure in said if figure not in section]
    [alone] = tax["one_cpu"].values()
    assert f"{alone['tax_by_wall_time']:.2f} times as long" in section


TRAINING = json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text())


@pytest.mark.parametrize("case", TRAINING)
def test_the_table_of_trainers_is_the_benchmarks(case):
    page = (ROOT / "docs" / "training.md").read_text()
    for name, own in TRAINING[case]["variants"].items():
        row = f"| {name} | {own['cpu_seconds_per_step']['min']:.3f} | {own['peak_mib']:,.0f} |"
        if against := TRAINING[case]["against"].get(name):
            row += f" {against['times_faster']:.2f} | {against['memory']:.2f} |"
            assert against.get("curve_apart", 0.0) < 1e-5
        assert row in page


def test_the_tables_of_methods_and_losses_are_the_registries():
    section = (ROOT / "docs" / "training.md").read_text().partition("## Methods and losses\n")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    forms = [{"text": m.from_text, "classes": m.from_classes} for m in METHODS.values()]
    forms += [{"text": o.over_tokens, "classes": o.over_classes, "pairs": o.over_pairs} for o in LOSSES.values()]
    forms += [{"pairs": o.over_pairs} for o in PREFERENCE_LOSSES.values()]
    said = [", ".join(form for form, made in own.items() if made) for own in forms]
    assert [row[:2] for row in rows] == [list(pair) for pair in zip([*METHODS, *LOSSES, *PREFERENCE_LOSSES], said, strict=True)]
    assert [row[3] for row in rows[: len(METHODS)]] == [method.loss for method in METHODS.values()]


def test_the_table_of_loads_is_the_benchmarks():
    page = (ROOT / "docs" / "training.md").read_text()
    measured = json.loads((ROOT / "benchmarks" / "results" / "loading.json").read_text())
    assert f"{measured['mib']['fp32']} MiB in fp32" in page
    by_workers = measured["copies"].values()
    for way in measured["copies"]["2"]:
        cells = [f"{own[way]['held']:.2f} ({own[way]['all']:.2f})" for own in by_workers]
        assert f"| {way} | {' | '.join(cells)} |" in page
    assert all(own[way]["held"] < 1.3 for own in by_workers for way in own if "zero_stage 3" in way)


def test_a_7b_llama_in_parts_is_what_the_page_says():
    with torch.device("meta"):
        sizes = [weight.numel() for weight in LlamaForCausalLM(LlamaConfig()).parameters()]  # transformers' default is 7B
    total, largest = 4 * sum(sizes) / 2**30, 4 * max(sizes) / 2**30
    held = (total + 8 * largest) / total
    page = " ".join((ROOT / "docs" / "training.md").read_text().split())
    assert (
        f"a 7B Llama in fp32 ({total:.1f} GiB, largest weight {largest:.2f} GiB) is held {held:.2f} times by eight ranks" in page
    )
    assert held < 1.3
