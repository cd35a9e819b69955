"""The main job: plan, execute, evaluate, report."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console

from raw2s.config import RunConfig
from raw2s.pipeline.answered import answered, choose_examples
from raw2s.pipeline.collect import collect_results
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check, check_surroundings
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.remote_store import open_store
from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.training_stages import Trained
from raw2s.pipeline.truth import truth_used
from raw2s.report import closing_table, write_report
from raw2s.report.examples import ExampleGroup
from raw2s.results import Results
from raw2s.storage import Place, Uri
from raw2s.storage.copies import ARTIFACTS, local, mirror
from raw2s.tracking import tracked_run


def run_pipeline(config: RunConfig, console: Console | None = None) -> Results:
    """Run every stage of `config` and write `<storage>/<name>/{config.yaml,results.json,report.html,figures/}`.

    Raises ConfigError before anything starts, StageFailed after.
    """
    check(config)
    check_surroundings(config)
    console = console or Console()
    where, folder = config.storage / config.name, local(config.storage / config.name)
    dumped = config.model_dump(mode="json")
    store = open_store(config.storage / ARTIFACTS)
    plans = [plan_stages(config, seed) for seed in config.seeds]
    stages = list({stage.name: stage for plan in plans for stage in plan.in_order()}.values())
    console.print(" ".join(truth_used(config, plans[0])), style="dim", highlight=False, soft_wrap=True)
    passing = passing_storage(config.storage)
    with tracked_run(config.name, config.storage, dumped) as tracker, StageDisplay(console) as display:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(dumped, sort_keys=False))
        mirror(folder, where, "config.yaml")
        if isinstance(where, Uri):
            display.say(f"a database cannot lie in {config.storage}; MLflow: {tracker.where}")
        if passing:
            display.warn(passing)

        def log(stage: Stage, done: Done) -> None:
            tracker.log_stage(stage.name, stage.settings, done.artifact.metrics, key=stage.key, cached=done.cached)
            if done.artifact.metrics.get("unparsable") == 1:
                display.warn(
                    f"{stage.name}: none of the answers is in the asked format, so all count as empty; see the closing notes"
                )

        done = execute(stages, store=store, display=display, ray_config=config.ray, on_done=log, on_points=tracker.log_points)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        results = collect_results(config, plans, stages, done, finished=finished, command=" ".join(sys.argv))
        file = results.write(folder)
        report = write_report(results, histories(stages, done), examples(plans[0], done, results), folder)
        mirror(folder, where)
        tracker.log_results(scores(results), [folder / "config.yaml", file, report])
    console.print(closing_table(results))
    shown = folder if isinstance(where, Path) else where
    console.print(
        f"report   {shown / report.name}\nresults  {shown / file.name}\nmlflow   {tracker.where}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if results.students:
        console.print(f"use      raw2s export {shown} {results.students[0].stage} FOLDER", highlight=False, soft_wrap=True)
    if passing:
        console.print(f"warning: {passing}", style="yellow", highlight=False, soft_wrap=True)
    return results


def passing_storage(storage: Place) -> str | None:
    """What to tell a user whose results would go with the job: Ray gives a submitted one its own copy of the working directory."""
    if "working_dir_files" not in local(storage).parts:
        return None
    return (
        f"storage {storage} lies in this job's copy of its working directory, which other nodes do not see and Ray deletes; "
        "add --set storage=/a/folder that every node sees"
    )


def scores(results: Results) -> dict[str, float]:
    """What the run's MLflow entry shows of them."""
    found = {f"teacher/{teacher.name}": teacher.score for teacher in results.tested}
    if results.ceiling is not None:
        found["ceiling"] = results.ceiling.score
    for index, student in enumerate(results.students):
        method = student.method.replace("+", "_").replace(":", "_")
        found |= {f"student/{index}_{method}": student.score, f"pgr/{index}_{method}": student.pgr}
    return {name: value for name, value in found.items() if value is not None}


def histories(stages: list[Stage], done: dict[str, Done]) -> dict[str, list[dict[str, float]]]:
    """The training curve of every stage that trained, in the order of the plan."""
    return {stage.name: stage.history(done[stage.name].artifact.folder) for stage in stages if isinstance(stage, Trained)}


def examples(plan: SeedPlan, done: dict[str, Done], results: Results) -> list[ExampleGroup]:
    """Of one seed."""
    tested = plan.testset.read(done[plan.testset.name].artifact.folder, "test")
    return choose_examples(answered(plan, lambda stage: done[stage.name].artifact.folder), tested, results)
