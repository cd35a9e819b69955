"""The stages that fit to the validation examples: temperatures, and the teachers' weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.special import softmax

from raw2s.config import Tolerance
from raw2s.evaluation.calibration import calibration_metrics, fit_temperature, negative_log_likelihood
from raw2s.labels.weights import TINY, fit_weights, mixture_weights, word_likelihoods
from raw2s.pipeline.answer_stages import Answers, Labeler, reject_rows, write_rejects
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.labeling_stages import cross_scores
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True)
class Fitted:
    """By teacher's name: what its logits are divided by, and its weight."""

    temperatures: Mapping[str, float]
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FitOnDevel(Stage):
    """What of the teachers is fitted to the validation examples."""

    kind: ClassVar[str] = "fit"
    validation: Examples
    task: Task

    FIT: ClassVar[str] = "fit.json"

    def read(self, folder: Path) -> Fitted:
        return Fitted(**json.loads((folder / self.FIT).read_text()))

    def write(self, folder: Path, fitted: Fitted) -> None:
        (folder / self.FIT).write_text(json.dumps(asdict(fitted), indent=1) + "\n")


@dataclass(frozen=True, kw_only=True)
class FitClasses(FitOnDevel):
    """From the models' class logits: a temperature each, and the weights of the smallest NLL."""

    answers: Mapping[str, Answers]
    calibrate: str | None

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
        self.write(work.out, Fitted(temperatures, weights))
        nll = {"uniform": mixed_IPK.mean(axis=0), "fitted": np.tensordot(weights_I, mixed_IPK, axes=1)}
        metrics |= {f"weight/{name}": weight for name, weight in weights.items()}
        return metrics | {f"nll_mixed/{key}": negative_log_likelihood(mixed_PK, labels_P) for key, mixed_PK in nll.items()}


@dataclass(frozen=True, kw_only=True)
class FitTexts(FitOnDevel):
    """From the models' scores of the true texts: the weights of the likeliest mixture over words (`word_likelihoods`)."""

    scorers: Mapping[str, Labeler]
    batch_size: int
    tolerance: Tolerance

    def run(self, work: Work) -> Metrics:
        examples = self.validation.read(work.folder(self.validation), "validation")
        prompts = {example["id"]: example["prompt"] for example in examples}
        truth = {example["id"]: [str(example["target"])] for example in examples}
        scores = cross_scores(self.name, work, self.scorers.values(), prompts, truth, batch_size=self.batch_size, known={})
        rejects = [row for name, scored in scores.items() for row in reject_rows(name, scored.answered.rejected)]
        refused = {row["id"] for row in rejects}
        ids = [i for i in prompts if i not in refused]
        rejected = write_rejects(work.out, rejects, len(prompts), self.tolerance)
        likelihood_IW = word_likelihoods([[scores[name].of(i)[0]["words"] for i in ids] for name in self.scorers])
        weights_I = mixture_weights(likelihood_IW)
        weights = dict(zip(self.scorers, weights_I.tolist(), strict=True))
        self.write(work.out, Fitted({}, weights))
        nll = {f"nll/{name}": own_W for name, own_W in zip(self.scorers, likelihood_IW, strict=True)}
        nll |= {"nll_mixed/uniform": likelihood_IW.mean(axis=0), "nll_mixed/fitted": weights_I @ likelihood_IW}
        return {
            "items": len(ids),
            "words": likelihood_IW.shape[1],
            **rejected,
            **{f"weight/{name}": weight for name, weight in weights.items()},
            **{name: float(-np.log(np.maximum(own_W, TINY)).mean()) for name, own_W in nll.items()},
        }
