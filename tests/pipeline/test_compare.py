"""Finished runs against each other: what differs in their configs, and their students in pairs on shared test examples."""

import io
import itertools
import shutil
from functools import partial

import numpy as np
import pytest
import yaml
from browser import browser, chromium
from html_page import Page
from rich.console import Console
from tiny_runs import tiny_run

from raw2s.cli import main
from raw2s.errors import ConfigError
from raw2s.evaluation import sign_test
from raw2s.evaluation.comparing import holm
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.compare import compare_runs
from raw2s.pipeline.jsonl import write_jsonl
from raw2s.pipeline.remote_store import RemoteStore
from raw2s.report.compared import PAIRS_SHOWN, compared_table, write_compared
from raw2s.results import Results, StageRecord, Student
from raw2s.storage import ARTIFACTS
from raw2s.storage.copies import local
from raw2s.storage.files import files_in, read, remove, write

NASTY = "<script>alert('x')</script> [red]"
ROWS = [{"id": i, "gold": i % 2} for i in range(200)]


def student(stage, title, right) -> Student:
    per_seed = [float(own.mean()) for own in right]
    return Student(
        stage=stage, title=title, form="classes", score=float(np.mean(per_seed)), ci95=(0.1, 0.9), per_seed=per_seed, method="naive",
        aux=False, confidence=True, pgr=None, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=[], best_teacher=None,
        over_best=None, over_best_ci95=(None, None),
    )  # fmt: skip


def copy_filled(artifact, out):
    for name in ("counts.npy", "predictions.jsonl"):
        shutil.copy(artifact / name, out / name)
    return {"metrics": {}}


def draw(share, seed):
    return np.random.default_rng(seed).random(len(ROWS)) < share


def finished(folder, name, students, *, rows=ROWS, seeds=(1,), metric="accuracy", **sections):
    """The folder of a finished run whose `students`, by title, are right as said, a seed each."""
    store, stages, made = ArtifactStore(folder / "artifacts"), [], []
    for place, (title, right) in enumerate(students.items()):
        for seed, own in zip(seeds, right, strict=True):
            key = f"{abs(hash((title, own.tobytes()))):016x}"[:16]

            def fill(out, own=own):
                np.save(out / "counts.npy", own.astype(float)[:, None])
                write_jsonl(out / "predictions.jsonl", [row | {"output": "", "predicted": 0} for row in rows])
                return {"metrics": {}}

            store.create("test", key, {}, fill)
            at = f"@{seed}" if len(seeds) > 1 else ""
            stages.append(StageRecord(name=f"test/student/{place}-naive{at}", key=key, cached=False, seconds=1.0))
        made.append(student(f"student/{place}-naive", title, right))
    run = folder / name
    run.mkdir()
    tree = tiny_run(folder, name=name, **{"task": {"name": "slurp_scenario"}, "methods": ["naive"]} | sections)
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    Results(
        run=name, task="slurp_scenario", form="classes", metric=metric, metric_title=metric, credit="", seeds=list(seeds),
        test_examples=len(rows), teachers=[], ceiling=None, baseline=None, students=made, environment={}, stages=stages,
    ).write(run)  # fmt: skip
    return run


def test_students_of_two_runs_are_paired_on_their_examples_and_corrected_together(tmp_path):
    good, poor, other = draw(0.9, 1), draw(0.5, 2), draw(0.88, 3)
    one = finished(tmp_path, "one", {"good": [good], "poor": [poor]})
    two = finished(tmp_path, "two", {"good": [good], "other": [other]}, student_training={"epochs": 3})
    comparison = compare_runs([one, two])
    named = {(pair.one[1].split()[0], pair.other[1].split()[0]): pair.difference for pair in comparison.pairs}
    assert named.keys() == {("good", "other"), ("poor", "good"), ("poor", "other")}, "the same model makes no pair"
    assert named["poor", "other"].difference == pytest.approx(poor.mean() - other.mean())
    low, high = named["poor", "other"].ci95
    assert low is not None and high is not None and low < poor.mean() - other.mean() < high < 0
    assert named["poor", "other"].sign_p == sign_test(poor, other)
    assert named["poor", "other"].p_holm < 0.001 < named["good", "other"].p
    own = list(named.values())
    assert [pair.p_holm for pair in own] == holm([pair.p for pair in own])
    assert [pair.sign_p_holm for pair in own] == holm([pair.sign_p for pair in own])


def test_runs_under_a_uri_are_compared_as_runs_on_a_disk_are(tmp_path, bucket, capsys):
    """The runs' files and their artifacts are fetched; one that is not whole is in no pair, and the page says where the runs lie."""
    shares = {"one": 0.9, "two": 0.6}
    folders = [finished(tmp_path, name, {name: [draw(share, 1)]}) for name, share in shares.items()]
    where = bucket / tmp_path.name
    store = RemoteStore(where / ARTIFACTS)
    for artifact in (tmp_path / ARTIFACTS / "test").glob("[!.]*"):
        store.create("test", artifact.name, {}, partial(copy_filled, artifact))
    for folder in folders:
        for name in files_in(folder):
            write(where / folder.name / name, read(folder / name))
    runs = [where / name for name in shares]
    there, here = compare_runs(runs), compare_runs(folders)
    assert there.pairs == here.pairs != []
    assert there.keys.keys() <= {"storage"}
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page")]) == 0
    capsys.readouterr()
    assert str(runs[0]) in (tmp_path / "page" / "report.html").read_text()

    named = next(name for name in files_in(where / ARTIFACTS / "test") if name.endswith("counts.npy"))
    remove(where / ARTIFACTS / "test" / named)
    shutil.rmtree(local(where))
    (note,) = compare_runs(runs).notes
    assert "is in no pair: " in note and "counts.npy is missing" in note


def test_the_order_of_the_runs_turns_a_difference_round(tmp_path):
    folders = [finished(tmp_path, name, {name: [draw(share, seed)]}) for name, share, seed in (("a", 0.6, 1), ("b", 0.7, 2))]
    (forth,), (back,) = (compare_runs(order).pairs for order in (folders, folders[::-1]))
    assert back.difference.difference == -forth.difference.difference
    assert back.difference.ci95 == pytest.approx([-end for end in reversed(forth.difference.ci95)])
    assert back.difference.sign_p == forth.difference.sign_p


def test_over_seeds_runs_with_the_same_ones_are_paired_in_them(tmp_path):
    """Two trainings a seed that differ by the seed alone: paired, nothing is left of its spread."""
    base, seeds = [draw(share, 7) for share in (0.5, 0.9)], (1, 2)
    worse = [own & ~draw(0.02, 9) for own in base]
    one = finished(tmp_path, "one", {"base": base}, seeds=seeds)
    same = finished(tmp_path, "same", {"worse": worse}, seeds=seeds)
    others = finished(tmp_path, "others", {"worse": [own.copy() for own in worse[::-1]]}, seeds=(3, 4))
    (paired,), (apart,) = (compare_runs([one, run]).pairs for run in (same, others))

    def width(pair):
        low, high = pair.difference.ci95
        return high - low

    assert width(paired) < 0.1 < width(apart)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": ROWS[::-1]}, "one and two are not compared by pairs: their test examples are not the same; test both on the same ones, in the same order."),
        ({"rows": [row | {"gold": 1} for row in ROWS]}, "one and two are not compared by pairs: their test examples are not the same; test both on the same ones, in the same order."),
        ({"metric": "macro_f1"}, "one and two are not compared by pairs: they are scored by accuracy and macro_f1; give both runs the same metric."),
        ({"task": {"name": "own"}}, "two is in no pair: "),
    ],
)  # fmt: skip
def test_what_cannot_be_paired_is_said_and_shown_side_by_side(tmp_path, changes, sentence):
    one, two = finished(tmp_path, "one", {"good": [draw(0.9, 1)]}), finished(tmp_path, "two", {"good": [draw(0.8, 2)]}, **changes)
    comparison = compare_runs([one, two])
    assert comparison.pairs == []
    assert comparison.notes[0].startswith(sentence) and comparison.notes[0].endswith(".") and len(comparison.notes) == 1
    ((_, row),) = comparison.rows.items()
    assert [shown.score for shown in row] == [pytest.approx(draw(0.9, 1).mean()), pytest.approx(draw(0.8, 2).mean())]


def test_answers_that_are_gone_are_said_too(tmp_path):
    one, two = (finished(tmp_path, name, {name: [draw(0.9, seed)]}) for name, seed in (("one", 1), ("two", 2)))
    counts = next(tmp_path.glob(f"artifacts/test/{Results.read(two).stages[0].key}/counts.npy"))
    counts.write_bytes(counts.read_bytes()[:-1])
    comparison = compare_runs([one, two])
    assert comparison.pairs == []
    assert comparison.notes == [f"two is in no pair: {counts.parent} is not whole (counts.npy has changed since it was written); run its config again."]  # fmt: skip


def test_only_keys_that_differ_are_shown_and_a_name_is_none(tmp_path):
    one = finished(tmp_path, "one", {"a": [draw(0.9, 1)]}, student_training={"epochs": 2})
    two = finished(tmp_path, "two", {"a": [draw(0.9, 2)]}, student_training={"epochs": 3}, methods=["naive", "bayesian"])
    keys = compare_runs([one, two]).keys
    assert keys == {"student_training.epochs": ["2", "3"], "methods": ["['naive']", "['naive', 'bayesian']"]}


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    folders = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        folders.append(finished(tmp_path / name, "run", {"a": [draw(0.9, len(name))]}))
    assert [run.name for run in compare_runs(folders).runs] == [str(folder) for folder in folders]


def test_fewer_than_two_runs_are_refused(tmp_path):
    one = finished(tmp_path, "one", {"a": [draw(0.9, 1)]})
    for given, said in (
        ([one], "give the folders of two or more"),
        ([one, one], "named twice"),
        ([one, tmp_path], "no results.json here"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare_runs(given)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Three runs of four students, with names that would break a page."""
    folder = tmp_path_factory.mktemp("many")
    folders = [
        finished(
            folder,
            f"run-{run}",
            {f"{title} {NASTY}": [draw(0.5 + 0.1 * place, 10 * run + place)] for place, title in enumerate("abcd")},
            weights={"loss": [1, run + 1]},
            teachers=[{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": f"./{NASTY}"}] if run else tiny_run(folder)["teachers"],
        )
        for run in range(3)
    ]  # fmt: skip
    return folders, compare_runs(folders)


def test_the_terminal_shows_runs_side_by_side_and_the_pairs_told_apart_best(many):
    _, comparison = many
    console = Console(file=io.StringIO(), width=160)
    console.print(compared_table(comparison))
    said = console.file.getvalue()
    assert "3 runs of slurp_scenario, scores in accuracy" in said and "weights.loss" in said and NASTY in said
    assert len(comparison.pairs) == sum(1 for _ in itertools.combinations(range(12), 2)) - 3 * 6
    assert f"{len(comparison.pairs) - PAIRS_SHOWN} more pairs are on the page." in said


def test_the_page_is_whole_loads_nothing_and_escapes_what_is_data(many, tmp_path):
    _, comparison = many
    page = Page(write_compared(comparison, tmp_path).read_text())
    assert page.open == [] and "script" not in page.tags
    assert all(own == "data:," or own.startswith("#") for own in page.loaded)
    assert page.text.count(NASTY) > 12
    assert all(run.name in page.text for run in comparison.runs)


def test_the_command_prints_and_writes(many, tmp_path, capsys):
    folders, _ = many
    assert main(["compare", *map(str, folders[:2]), "--out", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"report   {tmp_path / 'made' / 'report.html'}")
    assert (tmp_path / "made" / "figures" / "students.svg").is_file()


def test_a_telephone_shows_the_page_without_scrolling_sideways_in_light_and_dark(many, tmp_path):
    if chromium() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    page = write_compared(many[1], tmp_path / "made")
    with browser(tmp_path) as window:
        for scheme in ("light", "dark"):
            window.open(page, width=390, scheme=scheme)
            assert window.value("document.documentElement.scrollWidth") <= 390
            assert window.said == []
