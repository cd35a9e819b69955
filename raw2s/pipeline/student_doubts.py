"""From the stages that asked students how certain they are to what results.json says of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.doubt_results import Ensemble
from raw2s.evaluation.intervals import defined_interval
from raw2s.evaluation.metrics import Counts, errors
from raw2s.pipeline.answered import as_answered
from raw2s.pipeline.doubt_claims import Weighed
from raw2s.pipeline.doubt_figures import (
    Doubtful,
    Draws,
    Predicted,
    class_calibration,
    class_doubts,
    class_log_prediction,
    differing,
    disagreement,
    ensemble_of,
    measured_doubts,
    text_calibration,
    text_doubts,
    token_means,
)
from raw2s.pipeline.doubt_stages import AnswerDoubts, ClassLogits
from raw2s.pipeline.seed_plan import PlannedStudent, SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.testing_stages import Test
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class StudentDoubts:
    """The finished plans of a run, as its students' doubt is collected."""

    task: Task
    plans: Sequence[SeedPlan]
    folder: Callable[[Stage], Path]
    """Of a stage's artifact."""
    gold: Sequence[Any]
    """Of the test examples."""
    counts: Mapping[str, Counts]
    """The metric's, by the name of the test."""
    resampled: Draws

    def of(self, index: int) -> Weighed | None:
        """The student's doubt; None where none was asked for."""
        planned = [(plan, plan.students[index]) for plan in self.plans]
        if any(student.doubt is None for _, student in planned):
            return None
        score, resampled = self.task.metric.score, self.resampled
        said = [self.said(student.test) for _, student in planned]
        asked = [self.doubtful(*own, others=said[:place] + said[place + 1 :]) for place, own in enumerate(planned)]
        found = measured_doubts(asked, score, resampled)
        members = [self.predicted(*own) for own in planned] if self.task.form == "classes" else []
        calibrated = class_calibration(members, resampled) if members else text_calibration(asked, resampled)
        fields: dict[str, Any] = {"doubt": [own.record for own in found], "calibration": calibrated.record}
        if len(members) > 1:
            fields["ensemble"] = self.ensemble(members)
        return Weighed(
            fields=fields,
            evidential=planned[0][1].evidence is not None,
            auroc={own.record.measure: (own.record.auroc, own.auroc_R) for own in found if own.record.auroc is not None},
            gain={own.record.measure: (own.record.gain_80, own.gain_R) for own in found},
            nll={state: figure for state, figure in calibrated.nll.items() if math.isfinite(figure[0])},
        )

    def doubtful(self, plan: SeedPlan, student: PlannedStudent, others: Sequence[NDArray[np.object_]]) -> Doubtful:
        """`others` are what the other seeds' students of the entry said."""
        stage, counts_UC = student.doubt, self.counts[student.test.name]
        match stage:
            case ClassLogits():
                found = class_doubts(stage.logits(self.folder(stage)), student.evidence)
            case AnswerDoubts():
                found = text_doubts(stage.doubts(self.folder(stage)))
            case None:
                raise TypeError(f"{student.name} was not asked for its doubt")
        if student.dropout is not None:
            found |= token_means(student.dropout.doubts(self.folder(student.dropout)))
        if len(plan.teachers) > 1:
            found["teacher_disagreement"] = disagreement([self.said(test) for test in plan.teachers.values()])
        if others:
            found["seed_disagreement"] = differing(self.said(student.test), others)
        return Doubtful(doubts=found, error_U=errors(self.task.metric, self.gold, counts_UC), counts_UC=counts_UC)

    def said(self, test: Test) -> NDArray[np.object_]:
        """A model's answers to the test examples, the items of a list in any order: (U,)."""
        return as_answered(test.predictions(self.folder(test))).said

    def predicted(self, plan: SeedPlan, student: PlannedStudent) -> Predicted:
        stage, classes = student.doubt, self.task.classes
        assert isinstance(stage, ClassLogits), "classes have logits"
        label = {
            part: np.array([classes.index(example["target"]) for example in examples.drawn.parts[part]])
            for part, examples in (("test", plan.testset), ("validation", plan.validation))
        }
        folder = self.folder(stage)
        return Predicted(
            log_p_UK=class_log_prediction(stage.logits(folder), student.evidence),
            label_U=label["test"],
            log_p_PK=class_log_prediction(stage.validation_logits(folder), student.evidence),
            label_P=label["validation"],
        )

    def ensemble(self, members: Sequence[Predicted]) -> Ensemble:
        """An entry's students of all seeds as one; its interval is over the test examples."""
        predicted, found = ensemble_of(members)
        metric, resampled = self.task.metric, self.resampled
        counts_UC = metric.counts(self.gold, [self.task.classes[k] for k in predicted.log_p_UK.argmax(axis=1)])
        doubtful = Doubtful(doubts=found, error_U=errors(metric, self.gold, counts_UC), counts_UC=counts_UC)
        one = Draws(draws_RU=resampled.draws_RU, seeds_RS=np.ones((len(resampled.draws_RU), 1)))
        return Ensemble(
            members=len(members),
            score=float(metric.score(counts_UC.mean(axis=0))),
            ci95=defined_interval(metric.score(one.weights_RU @ counts_UC)),
            doubt=[own.record for own in measured_doubts([doubtful], metric.score, one)],
            calibration=class_calibration([predicted], one).record,
        )
