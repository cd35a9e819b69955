"""Every stage of a run here, in order, with the models and their training replaced by fixed answers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_runs import tiny_run

from raw2s.config import parse_config
from raw2s.decoding.bridge import words
from raw2s.labeling.cross_scores import Scores
from raw2s.labeling.units import Answered
from raw2s.labels.table import DOUBTS, DROPOUT_DOUBTS
from raw2s.pipeline.artifacts import Artifact, ArtifactStore
from raw2s.pipeline.collect import collect_results
from raw2s.pipeline.environment import environment
from raw2s.pipeline.execute import Done, build
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.stage import Stage, Work
from raw2s.results import Results


def model_logits(i: int, classes: int = 18) -> list[float]:
    """What every faked classifier says of an example."""
    return np.random.default_rng(i).normal(scale=4.0, size=classes).tolist()


def answers_of(pool, task, prompts, **_):
    """Stands for the actors of a model."""
    rows = [
        {"id": i, "logits": model_logits(i, len(task.classes))}
        if task.form == "classes"
        else {"id": i, "texts": ["{}", f"model {i}"]}
        for i in prompts
    ]
    return Answered(pa.Table.from_pylist(rows), {}, 1.0)


def cross_score(asked, candidates, **_):
    """Stands for the actors that score."""
    empty = Answered(pa.table({}), {}, 0.0)

    def of(i):
        scored = enumerate(candidates[i])
        return [{"words": [-1.0 - place] * (len(words(text)) + 1), "tokens": 3} for place, text in scored]

    return {pool.name: Scores(of, empty) for pool, _ in asked}


def ids_of(units):
    """Of the prompts, each with the model's own answer as its one candidate."""
    assert all(isinstance(answer, str) for unit in units for (answer,) in unit["candidates"])
    return [i for unit in units for i in unit["ids"]]


def doubts_of(pool, units, **_):
    """Stands for the actors that forward a model's own answers: one token of likelihood, which grows with the id."""
    rows = [
        {"id": i, "choice": [1 / (1 + i)], "entropy": [0.5], "vacuity": None, "mutual_information": None} for i in ids_of(units)
    ]
    return Answered(pa.Table.from_pylist(rows, schema=DOUBTS).drop_columns(["reason"]), {}, 1.0)


def dropout_doubts_of(pool, units, *, passes, **_):
    """Stands for the same with dropout on: doubt that grows with the id."""
    ids = ids_of(units)
    tokens = [[0.1 * i] if passes.classes else [0.0, 0.1 * i] for i in ids]
    rows = [{"id": i, "dropout_entropy": own, "dropout_mutual_information": own} for i, own in zip(ids, tokens, strict=True)]
    return Answered(pa.Table.from_pylist(rows, schema=DROPOUT_DOUBTS).drop_columns(["reason"]), {}, 1.0)


def fake_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stage trains or asks a model."""
    monkeypatch.setattr("raw2s.labeling.answers.answers_of", answers_of)
    monkeypatch.setattr("raw2s.labeling.doubts.doubts_of", doubts_of)
    monkeypatch.setattr("raw2s.labeling.dropout.dropout_doubts_of", dropout_doubts_of)
    monkeypatch.setattr("raw2s.labeling.cross_scores.cross_score", cross_score)
    monkeypatch.setattr("raw2s.training.fit.fit", lambda job, out, parts, **_: {"final_loss": 0.0})


def run_here(folder: Path, **sections: object) -> tuple[Results, list[Stage], dict[str, Artifact]]:
    """All stages of a tiny config, for seed 1 unless it names others: the results, the stages in order, their artifacts by name.

    What an earlier call has made in the folder is found.
    """
    config = parse_config(tiny_run(folder / "runs", **sections))
    plans, store = [plan_stages(config, seed) for seed in config.seeds], ArtifactStore(folder / "runs" / "artifacts")
    stages = list({stage.name: stage for plan in plans for stage in plan.in_order()}.values())
    done: dict[str, Done] = {}
    for stage in stages:
        inputs = {needed.key: done[needed.name].artifact for needed in stage.inputs.values()}
        found = store.find(stage.kind, stage.key, print)
        made = found or build(stage, store, Work(inputs=inputs, out=folder, parts=folder))
        done[stage.name] = Done(made, cached=found is not None)
    results = collect_results(config, plans, stages, done, finished="", command="", environment=environment())
    return results, stages, {name: finished.artifact for name, finished in done.items()}
