"""From the test stages to results.json: scores, PGR, and the intervals beside them."""

import platform
from pathlib import Path
from typing import Any

import numpy as np

from raw2s.config import RunConfig
from raw2s.evaluation import gap_is_noise, gap_recovered_interval, interval, paired_bootstrap, performance_gap_recovered
from raw2s.pipeline.artifacts import versions
from raw2s.pipeline.execute import Done
from raw2s.pipeline.stages import SeedPlan, Stage
from raw2s.tasks import get_task


def collect_results(
    config: RunConfig, plans: list[SeedPlan], stages_in_order: list[Stage], done: dict[str, Done], when: dict[str, Any]
) -> dict[str, Any]:
    """The content of results.json. Scores are fractions, means over seeds; intervals are paired bootstraps over the test
    utterances, which all seeds share, of those means. A teacher that is a file answers no test utterance: it is under `label_files`
    with its score against B's ground truth, and in no PGR, which is null where no teacher can be tested."""
    task = get_task(config.task.name)
    counts = {
        f"{name}@{plan.seed}": np.load(done[test.name].artifact.folder / "counts.npy")
        for plan in plans
        for name, test in plan.tests.items()
    }
    samples = paired_bootstrap(counts, task.score, resamples=config.evaluation.resamples)

    def per_seed(stages: list[Stage]) -> list[float]:
        return [float(task.score(counts[f"{s.name}@{plan.seed}"].mean(axis=0))) for plan, s in zip(plans, stages, strict=True)]

    def sampled(stages: list[Stage]) -> np.ndarray:
        return np.mean([samples[f"{s.name}@{plan.seed}"] for plan, s in zip(plans, stages, strict=True)], axis=0)

    def system(stages: list[Stage]) -> dict[str, Any]:
        scores = per_seed(stages)
        tests = [done[plan.tests[s.name].name].artifact for plan, s in zip(plans, stages, strict=True)]
        shares = ("empty", "unparsable") if task.kind == "generation" else ()
        extra = {key: float(np.mean([test.metrics[key] for test in tests])) for key in shares}
        return {"score": float(np.mean(scores)), "ci95": list(interval(sampled(stages))), "per_seed": scores, **extra}

    def file_system(stages: list[Stage]) -> dict[str, Any]:
        artifacts = [done[s.name].artifact for s in stages]
        on_b = [np.load(artifact.folder / "counts.npy") for artifact in artifacts]
        resampled = [
            paired_bootstrap({"": own}, task.score, resamples=config.evaluation.resamples, seed=plan.seed)[""]
            for plan, own in zip(plans, on_b, strict=True)
        ]
        scores = [float(task.score(own.mean(axis=0))) for own in on_b]
        counted = {
            key: [artifact.metrics[key] for artifact in artifacts] for key in ("items", "missing", "ids_not_in_b", "annotators")
        }
        ci95 = list(interval(np.mean(resampled, axis=0)))
        return {"score_on_b": float(np.mean(scores)), "ci95": ci95, "per_seed": scores, **counted}

    def pgr(scored: dict[str, Any], stages: list[Stage]) -> dict[str, Any]:
        by_teacher = {t["name"]: performance_gap_recovered(scored["score"], t["score"], ceiling["score"]) for t in teachers}
        if not teachers:
            return {"pgr": None, "pgr_ci95": [None, None], "pgr_by_teacher": by_teacher}
        return {
            "pgr": performance_gap_recovered(scored["score"], [t["score"] for t in teachers], ceiling["score"]),
            "pgr_ci95": list(gap_recovered_interval(sampled(stages), weak_samples, sampled(ceiling_stages))),
            "pgr_by_teacher": by_teacher,
        }

    teacher_stages = {name: [plan.teachers[name] for plan in plans] for name in plans[0].teachers}
    ceiling_stages = [plan.ceiling for plan in plans]
    teachers = [{"name": name, **system(stages)} for name, stages in teacher_stages.items()]
    ceiling = {"name": config.student.model, **system(ceiling_stages)}
    weak_samples = [sampled(stages) for stages in teacher_stages.values()]
    students = []
    for index, (student, method, _) in enumerate(plans[0].students):
        stages = [plan.students[index][2] for plan in plans]
        scored = system(stages)
        students.append(
            {
                "method": method,
                "aux": student.gamma_max > 0,
                "confidence": student.confidence,
                **scored,
                **pgr(scored, stages),
            }
        )
    return _without_nan(
        {
            "run": config.name,
            "task": config.task.name,
            "metric": task.metric,
            "seeds": config.seeds,
            "test_utterances": len(next(iter(counts.values()))),
            "teachers": teachers,
            "label_files": [
                {"name": name, **file_system([plan.label_files[name] for plan in plans])} for name in plans[0].label_files
            ],
            "ceiling": ceiling,
            "gap_is_noise": {
                name: gap_is_noise([s], sampled(ceiling_stages)) for name, s in zip(teacher_stages, weak_samples, strict=True)
            },
            "students": students,
            "environment": environment(),
            "stages": [
                {
                    "name": stage.name,
                    "key": stage.key,
                    "cached": done[stage.name].cached,
                    "seconds": done[stage.name].artifact.manifest["seconds"],
                }
                for stage in stages_in_order
            ],
            **when,
        }
    )


def environment() -> dict[str, str]:
    """The machine and the versions behind the numbers."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {_cpu_name()}",
        **versions(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _without_nan(value: Any) -> Any:
    """NaN, where a PGR is undefined, as null: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
