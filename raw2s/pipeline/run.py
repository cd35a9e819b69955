"""The main job: plan, execute, evaluate, report."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rich.console import Console

from raw2s.config import RunConfig
from raw2s.pipeline.answered import answered, choose_examples
from raw2s.pipeline.collect import collect_results
from raw2s.pipeline.environment import command, environment
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check, check_surroundings
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.remote_store import open_store
from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.training_stages import Trained
from raw2s.pipeline.truth import truth_used
from raw2s.pipeline.watching import Watching, kept
from raw2s.report import closing_table, write_report
from raw2s.report.examples import ExampleGroup
from raw2s.results import Results
from raw2s.status import RunStatus
from raw2s.storage import ARTIFACTS, Place, Uri
from raw2s.storage.copies import local, mirror
from raw2s.storage.files import files_in
from raw2s.tracking import Tracking, tracked_run

MODELS_SHOWN = 6
"""Students whose folders a run's last lines name."""


def run_pipeline(config: RunConfig, console: Console | None = None) -> Results:
    """Run every stage of `config` and write `<storage>/<name>/{config.yaml,results.json,report.html,figures/}`.

    Raises ConfigError before anything starts, StageFailed after.
    """
    check(config)
    check_surroundings(config)
    console = console or Console()
    where, folder = config.storage / config.name, local(config.storage / config.name)
    dumped = config.model_dump(mode="json")
    plans = [plan_stages(config, seed) for seed in config.seeds]
    stages = list({stage.name: stage for plan in plans for stage in plan.in_order()}.values())
    console.print(" ".join(truth_used(config, plans[0])), style="dim", highlight=False, soft_wrap=True)
    earlier = RunStatus.read(where)
    made_by = environment()
    about = {"command": command(), "storage": str(config.storage.resolve()), **made_by}
    with (
        tracked_run(config.name, local(config.storage), dumped, by=config.tracking, about=about) as tracking,
        StageDisplay(console) as display,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(dumped, sort_keys=False))
        mirror(folder, where, "config.yaml")
        for warning in filter(None, [passing_storage(config.storage), _take_over(earlier, tracking)]):
            display.warn(warning)
        if isinstance(where, Uri) and (mlflow := tracking.trackers.get("mlflow")):
            display.say(f"a database cannot lie in {config.storage}; MLflow: {mlflow.where}")
        with kept(where, config.name, stages, command=command(), tracked=tracking.ids) as file:
            done = execute(
                stages,
                store=open_store(config.storage / ARTIFACTS),
                display=display,
                ray_config=config.ray,
                listener=Watching(file, tracking, display),
            )
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            results = collect_results(config, plans, stages, done, finished=finished, command=command(), environment=made_by)
            written = results.write(folder)
            report = write_report(results, histories(stages, done), examples(plans[0], done, results), folder)
            figures = [f"figures/{name}" for name in files_in(folder / "figures")]
            # Not all that is here: `gathered` may have left older copies of the rest.
            mirror(folder, where, written.name, report.name, *figures)
            tracking.log_results(scores(results), [folder / "config.yaml", written, report])
    console.print(closing_table(results))
    console.print(
        "\n".join(closing_lines(config, where.resolve(), plans, results)), highlight=False, soft_wrap=True, markup=False
    )
    console.print(tracking.where, end="", highlight=False, soft_wrap=True, markup=False)
    if passing := passing_storage(config.storage):
        console.print(f"warning: {passing}", style="yellow", highlight=False, soft_wrap=True)
    return results


def _take_over(earlier: RunStatus | None, tracking: Tracking) -> str | None:
    """End what a killed process of the same run left open in the trackers; a warning where it lives."""
    if earlier is None or (state := earlier.now()) in ("done", "failed"):
        return None
    if state == "running":
        process = earlier.process
        return f"process {process.pid} on {process.host} runs {earlier.run} too; both write into its folder"
    for run_id in earlier.tracked.values():
        tracking.end_killed(run_id)
    return None


def closing_lines(config: RunConfig, run: Place, plans: Sequence[SeedPlan], results: Results) -> list[str]:
    """Where what the run made lies, and how to use it and to make it again."""
    lines = [f"report   {run / 'report.html'}", f"results  {run / 'results.json'}"]
    if isinstance(run, Path):  # under a URI models are in pieces, which `raw2s export` puts together
        students = [(student.stage, student.stage.source(run.parent / student.stage.place)) for student in plans[0].students]
        lines += [f"model    {stage.name}: {lies}" for stage, lies in students[:MODELS_SHOWN]]
        if len(students) > MODELS_SHOWN or len(plans) > 1:
            lines.append(f"models   all of them: raw2s status {shlex.quote(str(run))} --models")
    if results.students:
        lines.append(f"use      raw2s export {shlex.quote(str(run))} {results.students[0].stage} FOLDER")
    made_by = f"seeds {', '.join(map(str, config.seeds))}; raw2s {results.environment['raw2s']}"
    made_by += f", commit {commit}" if (commit := results.environment.get("commit")) else ""
    again = f"cd {shlex.quote(str(Path.cwd()))} && raw2s run {shlex.quote(str(local(run) / 'config.yaml'))}"
    return [*lines, f"started  {results.command}", f"again    {again}  # {made_by}"]


def passing_storage(storage: Place) -> str | None:
    """What to tell a user whose results would go with the job: Ray gives a submitted one its own copy of the working directory."""
    if "working_dir_files" not in local(storage).parts:
        return None
    return (
        f"storage {storage} lies in this job's copy of its working directory, which other nodes do not see and Ray deletes; "
        "add --set storage=/a/folder that every node sees"
    )


def scores(results: Results) -> dict[str, float]:
    """What the trackers show of them; low and high are the ends of 95 % intervals."""
    found = {f"teacher/{teacher.name}": teacher.score for teacher in results.tested}
    if results.ceiling is not None:
        found["ceiling"] = results.ceiling.score
    for index, student in enumerate(results.students):
        name = f"{index}_{student.method.replace('+', '_').replace(':', '_')}"
        figures = {
            "student": (student.score, student.ci95),
            "pgr": (student.pgr, student.pgr_ci95),
            "over_best": (student.over_best, student.over_best_ci95),
        }
        for what, (value, (low, high)) in figures.items():
            found |= {f"{what}/{name}": value, f"{what}_low/{name}": low, f"{what}_high/{name}": high}
    return {name: value for name, value in found.items() if value is not None}


def histories(stages: list[Stage], done: dict[str, Done]) -> dict[str, list[dict[str, float]]]:
    """The training curve of every stage that trained, in the order of the plan."""
    return {stage.name: stage.history(done[stage.name].artifact.folder) for stage in stages if isinstance(stage, Trained)}


def examples(plan: SeedPlan, done: dict[str, Done], results: Results) -> list[ExampleGroup]:
    """Of one seed."""
    tested = plan.testset.read(done[plan.testset.name].artifact.folder, "test")
    return choose_examples(answered(plan, lambda stage: done[stage.name].artifact.folder), tested, results)
