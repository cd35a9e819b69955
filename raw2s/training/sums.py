"""Sums of a checkpoint's files: DeepSpeed's shards are pickles, so only what a run has written, as it wrote it, is loaded.

Every rank sums up its own files while they are still in the page cache, and waits for no other. They lie beside them:

    sums-<rank>-of-<workers>.json

They tell damage, not intent: whoever can write shards there can write sums there.
"""

import json
from pathlib import Path

from raw2s.storage.manifest import checksum
from raw2s.training.progress import MODEL


class CheckpointChanged(Exception):
    """A checkpoint is not as its run wrote it: one sentence on what is not."""


def write_sums(folder: Path, *, rank: int, workers: int) -> None:
    """Of all that this rank has put there; the exported model is no pickle, and its artifact has sums of its own."""
    sums = {name: checksum(folder / name) for name in _files(folder)}
    (folder / f"sums-{rank}-of-{workers}.json").write_text(json.dumps(sums))


def changed(checkpoint: Path, *, part: int = 0, parts: int = 1) -> str | None:
    """What is not as all ranks wrote it, in one sentence without its full stop, or None.

    Names are compared in every call, and of the sums only part `part` of `parts`, about every `parts`-th file.
    """
    found = sorted(checkpoint.glob("sums-*-of-*.json"))
    try:
        written = {name: value for file in found for name, value in json.loads(file.read_text()).items()}
        workers = {int(file.stem.rpartition("-")[2]) for file in found}
    except (OSError, ValueError, AttributeError):
        return "the sums cannot be read"
    if workers != {len(found)}:
        return "the sums of some workers are missing"
    files = _files(checkpoint)
    if strange := sorted(written.keys() ^ set(files)):
        return f"{strange[0]} {'is missing' if strange[0] in written else 'was not written by its run'}"
    for name in files[part::parts]:
        if checksum(checkpoint / name) != written[name]:
            return f"{name} has changed since it was written"
    return None


def _files(folder: Path) -> list[str]:
    """All but the sums and the exported model, by their paths in the folder."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(str(name) for name in names if name.parts[0] != MODEL and not name.match("sums-*.json"))
