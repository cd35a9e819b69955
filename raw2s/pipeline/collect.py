"""From the test stages to `Results`: scores, PGR, and the intervals beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.config import RunConfig
from raw2s.evaluation import (
    drawn_seeds,
    drawn_utterances,
    gap_is_noise,
    gap_recovered_interval,
    paired_bootstrap,
    performance_gap_recovered,
)
from raw2s.evaluation.intervals import Samples, defined, defined_interval, over_seeds
from raw2s.evaluation.metrics import example_scores
from raw2s.methods.cross_entropy import AuxiliarySection
from raw2s.models.source import licence_of
from raw2s.pipeline.answer_stages import Given
from raw2s.pipeline.answered import agreements, answered
from raw2s.pipeline.claims import judge
from raw2s.pipeline.comparisons import Compared, Resampled, compare_students
from raw2s.pipeline.contrasts import contrasts
from raw2s.pipeline.doubt_claims import Weighed, doubt_claims
from raw2s.pipeline.doubt_figures import Draws
from raw2s.pipeline.execute import Done
from raw2s.pipeline.more_teachers import more_teachers, some_teachers
from raw2s.pipeline.seed_plan import PlannedStudent, SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.student_doubts import StudentDoubts
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.truth import truth_used
from raw2s.record import Interval
from raw2s.results import Agreement, Baseline, Ceiling, Claim, OnB, Results, SomeTeachers, StageRecord, Student, Teacher
from raw2s.tasks import task_of
from raw2s.tasks.baseline import trivial_baseline

DOUBT_RESAMPLES = 1000
"""The first of the scores': every one of them sorts the test examples by every measure of doubt."""


def collect_results(
    config: RunConfig,
    plans: Sequence[SeedPlan],
    stages: Sequence[Stage],
    done: dict[str, Done],
    *,
    finished: str,
    command: str,
    environment: dict[str, str],
) -> Results:
    """The results of the seeds' plans. Intervals are bootstraps over the test examples, which all seeds share, and over the seeds."""
    return _Collector(config=config, plans=plans, done=done).results(stages, finished, command, environment)


@dataclass(frozen=True, kw_only=True)
class _Collector:
    """Finished plans, while their figures are brought together."""

    config: RunConfig
    plans: Sequence[SeedPlan]
    done: dict[str, Done]

    def folder(self, stage: Stage) -> Path:
        return self.done[stage.name].artifact.folder

    @cached_property
    def task(self) -> Any:
        return task_of(self.config.task)

    @cached_property
    def counts(self) -> dict[str, NDArray[np.float64]]:
        """By the name of the test."""
        return {test.name: test.counts(self.folder(test)) for plan in self.plans for test in plan.tests}

    @cached_property
    def gold(self) -> list[Any]:
        return [example["gold"] for example in self.plans[0].testset.drawn.parts["test"]]

    @cached_property
    def samples(self) -> dict[str, Samples]:
        """Every test's score on the same resampled test sets."""
        return paired_bootstrap(self.counts, self.task.metric.score, resamples=self.config.evaluation.resamples)

    @cached_property
    def seeds_drawn(self) -> Samples:
        """(resamples, seeds), the same for all systems."""
        return drawn_seeds(len(self.plans), resamples=self.config.evaluation.resamples)

    def sampled(self, tests: Sequence[Test]) -> Samples:
        """Means over the seeds as drawn."""
        return over_seeds(self.seeds_drawn, [self.samples[test.name] for test in tests])

    def sampled_examples(self, tests: Sequence[Test]) -> Samples:
        """Means over the seeds as they are."""
        return np.mean([self.samples[test.name] for test in tests], axis=0)

    def scores(self, tests: Sequence[Test]) -> dict[str, Any]:
        """What a `System` holds, from its test of every seed."""
        per_seed = [float(self.task.metric.score(self.counts[test.name].mean(axis=0))) for test in tests]
        metrics = [self.done[test.name].artifact.metrics for test in tests]
        shares = [name for name in ("empty", "unparsable") if name in metrics[0]]
        return {
            "stage": tests[0].labeler.model.name.partition("@")[0],
            "form": self.task.form,
            "score": float(np.mean(per_seed)),
            "ci95": defined_interval(self.sampled(tests)),
            "per_seed": per_seed,
            "standard_error": float(np.std(per_seed, ddof=1) / math.sqrt(len(per_seed))) if len(per_seed) > 1 else None,
            **{name: float(np.mean([m[name] for m in metrics])) for name in shares},
        }

    @cached_property
    def teacher_tests(self) -> dict[str, list[Test]]:
        return {name: [plan.teachers[name] for plan in self.plans] for name in self.plans[0].teachers}

    @cached_property
    def ceiling_tests(self) -> list[Test]:
        """None of them where B lacks answers."""
        return [plan.ceiling for plan in self.plans if plan.ceiling is not None]

    @cached_property
    def ceiling(self) -> Ceiling | None:
        if not self.ceiling_tests:
            return None
        title = "ceiling (student on ground truth)"
        return Ceiling(name=self.config.student.model, title=title, **self.scores(self.ceiling_tests))

    @cached_property
    def teachers(self) -> list[Teacher]:
        teachers = []
        for section in self.config.teachers:
            name = section.name
            if name in self.teacher_tests:
                tests = self.teacher_tests[name]
                noise = bool(self.ceiling_tests) and gap_is_noise([self.sampled(tests)], self.sampled(self.ceiling_tests))
                teachers.append(Teacher(name=name, title=f"teacher {name}", gap_is_noise=noise, **self.scores(tests)))
            else:
                given = [plan.given[name] for plan in self.plans]
                stage = given[0].name.partition("@")[0]
                on_b = self.on_b(given)
                teachers.append(Teacher(name=name, title=f"teacher {name}", stage=stage, form=self.task.form, on_b=on_b))
        return teachers

    def on_b(self, stages: Sequence[Given]) -> OnB:
        metrics = [self.done[stage.name].artifact.metrics for stage in stages]
        counts = [stage.counts(self.folder(stage)) for stage in stages]
        score, resamples = self.task.metric.score, self.config.evaluation.resamples
        if not all(len(own) for own in counts):
            per_seed: list[float] = []
            ci95: Interval = (None, None)
        else:
            per_seed = [float(score(own.mean(axis=0))) for own in counts]
            resampled = [
                paired_bootstrap({"": own}, score, resamples=resamples, seed=plan.seed)[""]
                for plan, own in zip(self.plans, counts, strict=True)
            ]
            ci95 = defined_interval(np.mean(resampled, axis=0))
        counted = {key: [m[key] for m in metrics] for key in ("items", "missing", "ids_not_in_b", "annotators")}
        return OnB(score=float(np.mean(per_seed)) if per_seed else None, ci95=ci95, per_seed=per_seed, **counted)

    def student(self, planned: PlannedStudent, tests: Sequence[Test], doubt: Weighed | None) -> Student:
        loss = planned.method.loss
        return Student(
            title=planned.title,
            method=planned.name,
            aux=isinstance(loss, AuxiliarySection) and loss.gamma_max > 0,
            confidence=planned.method.confidence,
            weighting=planned.weighting,
            loss_values={name: value for name, value in loss.model_dump().items() if type(value) in (int, float)},
            **self.scores(tests),
            **self.gap(planned, tests),
            **({} if doubt is None else doubt.fields),
        )

    @cached_property
    def doubts(self) -> StudentDoubts:
        resamples = min(self.config.evaluation.resamples, DOUBT_RESAMPLES)
        draws_RU = drawn_utterances(len(next(iter(self.counts.values()))), resamples=resamples)
        resampled = Draws(draws_RU=draws_RU, seeds_RS=self.seeds_drawn[:resamples])
        return StudentDoubts(
            task=self.task, plans=self.plans, folder=self.folder, gold=self.gold, counts=self.counts, resampled=resampled
        )

    def gap(self, planned: PlannedStudent, tests: Sequence[Test]) -> dict[str, Any]:
        """PGR (Eq. 13) over the tested teachers that the student learned from, and its distance to the best of these."""
        weights = planned.before_preference.weights
        names = [name for name in self.teacher_tests if not isinstance(weights, dict) or weights.get(name, 1.0) > 0]
        scores = {teacher.name: teacher.score for teacher in self.teachers if teacher.score is not None}
        score, samples = float(np.mean(self.scores(tests)["per_seed"])), self.sampled(tests)
        nothing: dict[str, Any] = {"pgr": None, "pgr_ci95": (None, None), "pgr_by_teacher": {}, "learned_from": names}
        if not names:
            return {**nothing, "best_teacher": None, "over_best": None, "over_best_ci95": (None, None)}
        best = max(names, key=lambda name: scores[name])
        over = {
            "best_teacher": best,
            "over_best": score - scores[best],
            "over_best_ci95": defined_interval(samples - self.sampled(self.teacher_tests[best])),
        }
        if self.ceiling is None:
            return {**nothing, **over}
        strong = self.ceiling.score
        ci95, ci95_examples = (
            gap_recovered_interval(
                sampled(tests), [sampled(self.teacher_tests[name]) for name in names], sampled(self.ceiling_tests)
            )
            for sampled in (self.sampled, self.sampled_examples)
        )
        return {
            "pgr": defined(performance_gap_recovered(score, [scores[name] for name in names], strong)),
            "pgr_ci95": (defined(ci95[0]), defined(ci95[1])),
            "pgr_ci95_examples": (defined(ci95_examples[0]), defined(ci95_examples[1])),
            "pgr_by_teacher": {name: defined(performance_gap_recovered(score, weak, strong)) for name, weak in scores.items()},
            "learned_from": names,
            **over,
        }

    @cached_property
    def resampled(self) -> list[Resampled]:
        """The students, in the order of the plan."""
        return [self.resampled_student(index, planned) for index, planned in enumerate(self.plans[0].students)]

    def resampled_student(self, index: int, planned: PlannedStudent) -> Resampled:
        tests = [plan.students[index].test for plan in self.plans]
        doubt = self.doubts.of(index)
        student = self.student(planned, tests, doubt)
        return Resampled(
            student=student,
            samples=self.sampled(tests),
            per_example=np.mean([example_scores(self.task.metric, self.gold, self.counts[test.name]) for test in tests], axis=0),
            best=None if student.best_teacher is None else self.sampled(self.teacher_tests[student.best_teacher]),
            doubt=doubt,
        )

    @cached_property
    def compared(self) -> Compared:
        return compare_students(self.resampled)

    def claims(self) -> list[Claim]:
        students = [own.student for own in self.resampled]
        scores, samples = [student.score for student in students], [own.samples for own in self.resampled]
        asked = contrasts(students, self.task.form) + (more_teachers(students) if self.all_tested else [])
        return judge(asked, scores, samples)

    def doubt_claims(self) -> list[Claim]:
        return doubt_claims([(own.student.label, own.doubt) for own in self.resampled if own.doubt is not None])

    @property
    def all_tested(self) -> bool:
        """Whether `learned_from` names every teacher that a student learned from."""
        return len(self.config.models) == len(self.config.teachers)

    def by_teachers(self) -> list[SomeTeachers]:
        if not self.all_tested:
            return []
        return some_teachers([own.student for own in self.resampled], [own.samples for own in self.resampled])

    def baseline(self) -> Baseline | None:
        plan = self.plans[0]
        found = trivial_baseline(self.task, plan.validation.drawn.parts["validation"], plan.testset.drawn.parts["test"])
        return Baseline(answer=found.answer, score=found.score)

    def agreements(self) -> list[Agreement]:
        teachers = [tests[0].labeler.model.name.partition("@")[0] for tests in self.teacher_tests.values()]
        return agreements([answered(plan, self.folder) for plan in self.plans], teachers)

    def licences(self) -> list[str]:
        models = [teacher.model for teacher in self.config.models]
        return [licence_of(model) for model in dict.fromkeys([*models, self.config.student.model])]

    def results(self, stages: Sequence[Stage], finished: str, command: str, environment: dict[str, str]) -> Results:
        records = [
            StageRecord(
                name=stage.name,
                key=stage.key,
                cached=self.done[stage.name].cached,
                seconds=self.done[stage.name].artifact.manifest["seconds"],
            )
            for stage in stages
        ]
        return Results(
            run=self.config.name,
            task=self.task.name,
            form=self.task.form,
            metric=self.task.metric.name,
            metric_title=self.task.metric.title,
            credit=self.task.credit,
            licences=self.licences(),
            notes=list(self.task.notes),
            truth=truth_used(self.config, self.plans[0]),
            seeds=self.config.seeds,
            test_examples=len(next(iter(self.counts.values()))),
            teachers=self.teachers,
            ceiling=self.ceiling,
            baseline=self.baseline(),
            students=self.compared.students,
            differences=self.compared.differences,
            claims=self.claims(),
            doubt_claims=self.doubt_claims(),
            by_teachers=self.by_teachers(),
            agreements=self.agreements(),
            visible=self.compared.visible,
            visible_between=self.compared.visible_between,
            environment=environment,
            stages=records,
            finished=finished,
            command=command,
        )
