"""Labels alone: a run up to the label table, and finished tables as data sets for other trainers."""

import json
from pathlib import Path

from rich.console import Console

from raw2s.config import RunConfig
from raw2s.errors import ConfigError
from raw2s.labels.export import Format, Labels, write_dataset
from raw2s.labels.table import read_table
from raw2s.pipeline.artifacts import MANIFEST
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check, check_surroundings
from raw2s.pipeline.remote_store import open_store
from raw2s.pipeline.stage import inputs_first
from raw2s.results import Results
from raw2s.storage import ARTIFACTS, Place
from raw2s.storage.copies import fetched, gathered, original


def run_labels(config: RunConfig, console: Console | None = None) -> list[Path]:
    """Run what the label table of every seed needs, and the table; says where they lie and returns their folders.

    Raises ConfigError before anything starts, StageFailed after.
    """
    from raw2s.pipeline.execute import execute  # Ray takes seconds; an export does not wait  # noqa: PLC0415
    from raw2s.pipeline.progress import StageDisplay  # noqa: PLC0415

    check(config)
    check_surroundings(config)
    console = console or Console()
    store = open_store(config.storage / ARTIFACTS)
    labels = [plan_stages(config, seed).label for seed in config.seeds]
    with StageDisplay(console) as display:
        done = execute(inputs_first(labels), store=store, display=display, ray_config=config.ray)
    folders = [done[label.name].artifact.folder for label in labels]
    for folder in folders:
        console.print(f"labels   {(original(folder) or folder) / Label.TABLE}", highlight=False, soft_wrap=True)
    return folders


def export_labels(given: Place, form: Format, out: Path | None) -> Path:
    """Write the label table that lies in `given`, a label artifact or a run's folder, as a data set; returns its folder.

    Raises ConfigError, in one line, for a folder that holds none and a data set that cannot be made.
    """
    table = _label_artifact(given)
    out = out or Path(f"labels-{form}")
    try:
        write_dataset(_labels(table), form, out)
    except ValueError as error:
        raise ConfigError(f"{given}: {error}") from None
    return out


def _labels(artifact: Place) -> Labels:
    """The table with its prompts, which lie in the artifact of the split that it was made from."""
    folder = fetched(artifact)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    split = artifact.parent.parent / Examples.kind / manifest["inputs"]["split"]
    try:
        examples = read_jsonl(Examples.file(fetched(split), "student"))
    except OSError:
        raise ConfigError(f"{artifact}: its prompts are gone with {split}; run the config again") from None
    table, teachers = read_table(folder / Label.TABLE)
    prompts = {example["id"]: example["prompt"] for example in examples}
    _, _, _, classes, _ = manifest["settings"]["task"]  # as `Task.content` has them
    return Labels(prompts=prompts, table=table, teachers=teachers, classes=classes)


def _label_artifact(given: Place) -> Place:
    """`given` itself where it is a label artifact; else that of the finished run whose folder it is."""
    folder = given.resolve()
    if _is_label(folder):
        return folder
    try:
        stages = Results.read(gathered(folder)).stages
    except (OSError, ValueError):
        raise ConfigError(f"{given}: neither a label table nor a finished run; give what `raw2s label CONFIG` prints") from None
    store = folder.parent / ARTIFACTS / Label.kind
    made = [store / stage.key for stage in stages if stage.name.partition("@")[0] == "label"]
    if len(made) > 1:
        raise ConfigError(f"{given}: has a label table a seed; give one of {', '.join(map(str, made))}")
    if not made or not _is_label(made[0]):
        raise ConfigError(f"{given}: its label table is gone from {store}; run the config again")
    return made[0]


def _is_label(artifact: Place) -> bool:
    folder = fetched(artifact)
    return (folder / Label.TABLE).is_file() and (folder / MANIFEST).is_file()
