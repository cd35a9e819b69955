"""The main job: plan, execute, evaluate, report."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raw2s.config import RunConfig
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.preflight import check
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.results import collect_results
from raw2s.pipeline.stages import SeedPlan, Stage, plan_stages, read_jsonl
from raw2s.report import closing_table, write_report
from raw2s.tracking import tracked_run

EXAMPLES_SHOWN = 8


def run_pipeline(config: RunConfig, console: Console | None = None) -> dict[str, Any]:
    """Run every stage of `config` and write `<storage>/<name>/{config.yaml,results.json,report.html,figures/}`.

    Returns the content of results.json. Raises ConfigError before anything starts, StageFailed after.
    """
    check(config)
    console = console or Console()
    folder = (config.storage / config.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    dumped = config.model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(dumped, sort_keys=False))
    store = ArtifactStore(config.storage / "artifacts")
    plans = [plan_stages(config, seed) for seed in config.seeds]
    stages = list({stage.name: stage for plan in plans for stage in plan.in_order()}.values())
    passing = passing_storage(config.storage)
    with tracked_run(config.name, config.storage, dumped) as tracker, StageDisplay(console) as display:
        if passing:
            display.warn(passing)

        def log(stage: Stage, done: Done) -> None:
            tracker.log_stage(stage.name, stage.settings, done.artifact.metrics, key=stage.key, cached=done.cached)

        done = execute(stages, store, display, config.ray, log, tracker.log_points)
        when = {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(sys.argv)}
        results = collect_results(config, plans, stages, done, when)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        report = write_report(results, histories(done), examples(plans[0], done), folder)
        scores = {"ceiling": results["ceiling"]["score"], **{f"teacher/{t['name']}": t["score"] for t in results["teachers"]}}
        for index, student in enumerate(results["students"]):
            method = student["method"].replace("+", "_").replace(":", "_")
            scores[f"student/{index}_{method}"] = student["score"]
            if student["pgr"] is not None:
                scores[f"pgr/{index}_{method}"] = student["pgr"]
        tracker.log_results(scores, [folder / "config.yaml", folder / "results.json", report])
        where = tracker.where
    console.print(closing_table(results))
    console.print(
        f"report   {report}\nresults  {folder / 'results.json'}\nmlflow   {where}",
        highlight=False,
        soft_wrap=True,
    )
    if passing:
        console.print(f"warning: {passing}", style="yellow", highlight=False, soft_wrap=True)
    return results


def passing_storage(storage: Path) -> str | None:
    """What to tell a user whose results would go with the job: Ray gives a submitted one its own copy of the working directory."""
    if "working_dir_files" not in storage.resolve().parts:
        return None
    return (
        f"storage {storage} lies in this job's copy of its working directory, which other nodes do not see and Ray deletes; "
        "add --set storage=/a/folder that every node sees"
    )


def histories(done: dict[str, Done]) -> dict[str, list[dict[str, Any]]]:
    """The training curve of every stage that trained."""
    files = {name: finished.artifact.folder / "history.jsonl" for name, finished in done.items()}
    return {name: read_jsonl(file) for name, file in files.items() if file.is_file()}


def examples(plan: SeedPlan, done: dict[str, Done]) -> list[dict[str, Any]]:
    """A few test utterances with every system's answer, those on which the systems differ most first."""
    systems = {name: done[test.name].artifact.folder / "predictions.jsonl" for name, test in plan.tests.items()}
    outputs = {name: read_jsonl(file) for name, file in systems.items()}
    test = read_jsonl(done[plan.testset.name].artifact.folder / "test.jsonl")
    order = sorted(range(len(test)), key=lambda u: (-len({rows[u]["output"] for rows in outputs.values()}), u))
    return [
        {
            "prompt": test[u]["prompt"].strip(),
            "gold": test[u]["target"],
            "outputs": {name: rows[u]["output"] for name, rows in outputs.items()},
        }
        for u in order[:EXAMPLES_SHOWN]
    ]
