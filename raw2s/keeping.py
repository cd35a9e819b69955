"""What lies in a storage, which of it its runs name, and what may go."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pyarrow.fs import FileInfo

from raw2s.config import load_config
from raw2s.errors import ConfigError
from raw2s.pipeline.artifacts import is_held
from raw2s.pipeline.plan import plan_stages
from raw2s.status import FILE as STATUS
from raw2s.status import RunStatus
from raw2s.storage import ARTIFACTS, Place
from raw2s.storage.copies import ATTEMPT, Damaged, fetch, gathered
from raw2s.storage.files import answering, folders_in, infos, read, remove
from raw2s.storage.manifest import MANIFEST, damage
from raw2s.tracking import mlflow, wandb
from raw2s.tuning.trials import FILE as TRIALS

KEPT = timedelta(days=1)
"""What is younger may be another run's that has no results yet, or be in the writing: it is never deleted."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing under `artifacts`."""

    what: Literal["artifact", "parts", "half-written", "damaged"]
    """`parts` is what a stage finished on its way; half-written is what nobody reads."""
    kind: str
    key: str
    lies: Place
    bytes: int
    written: datetime
    """Its newest file."""


def entries_of(storage: Place) -> list[Entry]:
    """All of them, by one listing of the storage."""
    root = storage / ARTIFACTS
    found: dict[tuple[str, str], dict[str, FileInfo]] = defaultdict(dict)
    for name, info in infos(root).items():
        kind, _, rest = name.partition("/")
        child, below, inside = rest.partition("/")
        if below:  # else a lock
            found[kind, child][inside] = info
    return [entry for (kind, child), files in found.items() for entry in _entries(root / kind / child, kind, files)]


def _entries(lies: Place, kind: str, files: dict[str, FileInfo]) -> Iterator[Entry]:
    name, key = lies.name, lies.name.lstrip(".")[:16]
    if name.startswith("."):
        # `.parts-...` is a second maker's, which nobody resumes.
        yield _entry("parts" if name.endswith(".parts") else "half-written", kind, key, lies, files)
    elif ".damaged-" in name:
        yield _entry("damaged", kind, key, lies, files)
    elif isinstance(lies, Path):
        yield _entry("artifact" if MANIFEST in files else "half-written", kind, key, lies, files)
    else:
        by_attempt: dict[str, dict[str, FileInfo]] = defaultdict(dict)
        for file, info in files.items():
            by_attempt[file.partition("/")[0] if "/" in file else ""][file] = info
        manifest = read(lies / MANIFEST) if MANIFEST in files else None
        named = "" if manifest is None else json.loads(manifest)[ATTEMPT]
        if manifest is not None:
            yield _entry("artifact", kind, key, lies, by_attempt.pop(named, {}) | by_attempt.pop("", {}))
        for attempt, own in by_attempt.items():
            yield _entry("half-written", kind, key, lies / attempt, own)


def _entry(what: Literal["artifact", "parts", "half-written", "damaged"], kind: str, key: str, lies: Place, files: dict[str, FileInfo]) -> Entry:  # fmt: skip
    written = max(info.mtime for info in files.values())
    return Entry(what=what, kind=kind, key=key, lies=lies, bytes=sum(info.size for info in files.values()), written=written)


def named_keys(storage: Place) -> dict[str, set[str]]:
    """By the name of each run, the keys of its stages: of its results, its status, and every config in its folder as it is planned now.

    Raises ConfigError where a run cannot say what it uses: one that is not done whose config cannot be planned, a sweep without an end.
    """
    keys: dict[str, set[str]] = {}
    for name in folders_in(storage):
        if name == ARTIFACTS:
            continue
        files = infos(storage / name)
        if name in (mlflow.BESIDE, wandb.BESIDE) and not files.keys() & {"config.yaml", "results.json", STATUS}:
            continue  # the tracker's, in which lie copies of configs; a run may have its name
        results = _keys_of_results(storage / name) if "results.json" in files else None
        status = RunStatus.read(storage / name) if STATUS in files else None
        if any(file.rpartition("/")[2] == TRIALS for file in files) and "best.yaml" not in files:
            raise ConfigError(f"{storage / name}: a sweep that has no best config yet may go on; finish it, or delete its folder")
        configs = [file for file in files if file.endswith(".yaml")]
        if configs or results is not None or status is not None:
            told = {stage.key for stage in status.stages} if status else set()
            done = results is not None and status is not None and status.outcome == "done"  # else results are of an earlier start
            keys[name] = (results or set()) | told | _planned(storage / name, configs, must=not done)
    return keys


def _keys_of_results(run: Place) -> set[str]:
    try:
        return {stage["key"] for stage in json.loads(read(run / "results.json") or b"")["stages"]}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{run / 'results.json'}: not a run's results; mend it, or delete the run's folder") from None


def _planned(run: Place, configs: Sequence[str], *, must: bool) -> set[str]:
    keys: set[str] = set()
    for name in configs:
        try:
            config = load_config(gathered(run) / name, [])
            keys |= {stage.key for seed in config.seeds for stage in plan_stages(config, seed).in_order()}
        except (ConfigError, ValueError, OSError) as error:
            if must:
                raise ConfigError(
                    f"{run / name}: what this run uses cannot be told ({error}); go to the folder it was started in, mend its data, or delete its folder"
                ) from None
    return keys


def unused(entries: Sequence[Entry], keys: dict[str, set[str]], now: datetime) -> list[Entry]:
    """What no run names and nobody writes: artifacts, and parts of stages, of other keys; what is half-written, or set aside as damaged."""
    used = set().union(*keys.values())
    return [
        entry
        for entry in entries
        if (entry.key not in used or entry.what in ("half-written", "damaged"))
        and now - entry.written > KEPT
        and not (isinstance(entry.lies, Path) and is_held(entry.lies))
    ]


def delete(entries: Sequence[Entry]) -> None:
    """The manifests first: what is cut off in between is half-written, and read by nobody."""
    for entry in entries:
        if entry.what == "artifact":
            remove(entry.lies / MANIFEST)
        remove(entry.lies)


def problem_of(artifact: Entry) -> str | None:
    """What is wrong with an artifact by the sums of all its files, which are fetched for that from a URI."""
    if isinstance(artifact.lies, Path):
        return damage(artifact.lies)
    with TemporaryDirectory() as folder:
        try:
            fetch(artifact.lies, read(artifact.lies / MANIFEST) or b"", Path(folder))
        except Damaged as error:
            return str(error).removeprefix(f"{artifact.lies}: ").partition(";")[0]
    return None


def tell(storage: Place, *, verify: bool, remove_unused: bool) -> Iterator[str]:
    """What lies there, a line each as it is found: `verify` checks every sum, `remove_unused` deletes what no run uses.

    Raises ConfigError where a run cannot say what it uses, StageFailed where the storage does not answer.
    """
    with answering(storage):
        entries, keys = entries_of(storage), named_keys(storage)
        yield from summary(entries, keys)
        if verify:
            artifacts = [entry for entry in entries if entry.what == "artifact"]
            problems = {entry: problem for entry in artifacts if (problem := problem_of(entry))}
            yield from (f"damaged  {entry.lies}: {problem}" for entry, problem in problems.items())
            yield f"verified {len(artifacts):,} artifacts, {len(problems):,} of them damaged; a run makes those again"
            if remove_unused:
                entries, keys = entries_of(storage), named_keys(storage)  # sums take hours, in which runs begin and end
        left = unused(entries, keys, now())
        if remove_unused:
            delete(left)
        said = "deleted" if remove_unused else "unused"
        yield from (f"{said:<8} {entry.lies} ({entry.what}, {entry.bytes:,} bytes)" for entry in left)
        what = "deleted" if remove_unused else "used by no run and older than a day; --delete deletes them"
        yield f"{len(left):,} of {len(entries):,}, {sum(entry.bytes for entry in left):,} bytes, {what}"


def summary(entries: Sequence[Entry], keys: dict[str, set[str]]) -> list[str]:
    """Lines: what there is of every kind, and what each run uses."""
    lines = [f"{'kind':<24} {'number':>7} {'bytes':>18}"]
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[entry.kind if entry.what == "artifact" else f"{entry.kind} ({entry.what})"].append(entry)
    lines += [f"{kind:<24} {len(own):>7,} {sum(e.bytes for e in own):>18,}" for kind, own in sorted(by_kind.items())]
    lines.append(f"{'all':<24} {len(entries):>7,} {sum(e.bytes for e in entries):>18,}")
    for name, named in keys.items():
        own = [entry for entry in entries if entry.key in named]
        lines.append(f"run {name} uses {len(own):,}, {sum(entry.bytes for entry in own):,} bytes")
    return lines


def now() -> datetime:
    return datetime.now(UTC)
