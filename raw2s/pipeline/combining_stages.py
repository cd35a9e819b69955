"""The stages between labels and student: crowd methods, and what is fitted on the validation examples."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax

from raw2s.evaluation.calibration import calibration_metrics, fit_temperature, negative_log_likelihood
from raw2s.labels.crowd import CrowdMethod, Vote, combine_votes
from raw2s.labels.forms import logit_rows
from raw2s.labels.table import CLASSIFICATION, read_table, write_table
from raw2s.labels.weights import fit_weights
from raw2s.pipeline.answer_stages import Answers, Given
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Combine(Stage):
    """The votes of all teachers, a file's annotators each for itself, combined by a crowd method into a table of one teacher."""

    kind: ClassVar[str] = "combine"
    split: Examples
    label: Label
    given: Mapping[str, Given]
    """The teachers without a model, by name, whose annotators vote one by one."""
    task: Task
    method: CrowdMethod
    seed: int

    TABLE: ClassVar[str] = "labels.parquet"

    def read(self, folder: Path) -> tuple[list[Any], list[str]]:
        """The rows, and the name of their one teacher: the method's."""
        return read_table(folder / self.TABLE)

    def run(self, work: Work) -> Metrics:
        table, names = self.label.read(work.folder(self.label))
        kept = {row["id"] for row in table}
        votes: list[Vote] = []
        for place, name in enumerate(names):
            if name in self.given:
                given = self.given[name]
                votes += [vote for vote in given.votes(work.folder(given)) if vote[0] in kept]
            else:
                votes += [(row["id"], name, int(np.argmax(row["logits"][place]))) for row in table]
        combined = combine_votes(votes, self.method, len(self.task.classes), self.seed)
        rows = logit_rows({row["id"]: combined[row["id"]] for row in table})
        one_teacher = ({"id": row["id"], "logits": [row["logits"]]} for row in rows)
        write_table(work.out / self.TABLE, one_teacher, CLASSIFICATION, [self.method])
        gold = {example["id"]: example["gold"] for example in self.split.read(work.folder(self.split), "student")}
        right = [self.task.classes[int(np.argmax(own))] == gold[i] for i, own in combined.items() if gold[i] is not None]
        return {
            "items": len(rows),
            "votes": len(votes),
            "workers": len({worker for _, worker, _ in votes}),
            **({"accuracy_on_b": float(np.mean(right))} if right else {}),
        }


@dataclass(frozen=True)
class Fitted:
    """By teacher's name: what its logits are divided by, and its weight."""

    temperatures: Mapping[str, float]
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FitOnDevel(Stage):
    """From the models' answers on the validation examples: a temperature each, and the weights of the smallest NLL."""

    kind: ClassVar[str] = "fit"
    validation: Examples
    answers: Mapping[str, Answers]
    task: Task
    calibrate: str | None

    FIT: ClassVar[str] = "fit.json"

    def read(self, folder: Path) -> Fitted:
        return Fitted(**json.loads((folder / self.FIT).read_text()))

    def run(self, work: Work) -> Metrics:
        examples = self.validation.read(work.folder(self.validation), "validation")
        labels = {example["id"]: self.task.classes.index(str(example["target"])) for example in examples}
        tables = {name: stage.read(work.folder(stage)) for name, stage in self.answers.items()}
        answers = {n: dict(zip(t["id"].to_pylist(), t["logits"].to_pylist(), strict=True)) for n, t in tables.items()}
        ids = [i for i in labels if all(i in own for own in answers.values())]
        labels_P = np.array([labels[i] for i in ids], dtype=np.int64)
        metrics: Metrics = {"items": len(ids)}
        temperatures, probabilities = {}, []
        for name, own in answers.items():
            logits_PK = np.array([own[i] for i in ids], dtype=np.float64)
            temperatures[name] = fit_temperature(logits_PK, labels_P) if self.calibrate else 1.0
            metrics |= {f"{key}/{name}": value for key, value in calibration_metrics(logits_PK, labels_P).items()}
            if self.calibrate:
                after = calibration_metrics(logits_PK, labels_P, temperatures[name])
                metrics[f"temperature/{name}"] = temperatures[name]
                metrics |= {f"{key}_calibrated/{name}": value for key, value in after.items()}
            probabilities.append(softmax(logits_PK / temperatures[name], axis=1))
        mixed_IPK = np.array(probabilities)
        weights_I = fit_weights(mixed_IPK, labels_P)
        weights = dict(zip(answers, weights_I.tolist(), strict=True))
        (work.out / self.FIT).write_text(json.dumps({"temperatures": temperatures, "weights": weights}, indent=1) + "\n")
        nll = {"uniform": mixed_IPK.mean(axis=0), "fitted": np.tensordot(weights_I, mixed_IPK, axes=1)}
        metrics |= {f"weight/{name}": weight for name, weight in weights.items()}
        return metrics | {f"nll_mixed/{key}": negative_log_likelihood(mixed_PK, labels_P) for key, mixed_PK in nll.items()}
