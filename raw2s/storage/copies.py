"""A node's copies of what lies under a URI: models, tables and rows are read as local files, fetched where a node first needs them.

    <RAW2S_CACHE, or ~/.cache/raw2s>/<the bucket, quoted>/<path below it>

A copy's path says what it is a copy of, so a path that the driver hands to a worker leads to the same artifact on every node.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from raw2s.errors import StageFailed
from raw2s.storage.files import AT_ONCE, answering, copy, files_in, filesystem, read, write
from raw2s.storage.manifest import MANIFEST, damage
from raw2s.storage.uri import ARTIFACTS, Place, Uri, place

ATTEMPT = "attempt"
"""In the manifest of an artifact under a URI: in which folder beside it the files lie. Of two writers each has its own."""

ESCAPE = "="
"""In a quoted bucket, for %: a path with that in it is taken for quoted by whoever reads it as part of a URI, such as MLflow's database."""


class Damaged(StageFailed):
    """An artifact under a URI is not what its manifest says."""


def local(where: Place) -> Path:
    """The folder of this node that stands for a place: itself, or that of its copies."""
    if isinstance(where, Path):
        return where.resolve()
    whole = Path(os.environ.get("RAW2S_CACHE") or Path.home() / ".cache" / "raw2s").resolve()
    bucket = quote(str(Uri(where.root, "", where.query)), safe="").replace("%", ESCAPE)
    return whole / bucket / where.path


def original(path: Path) -> Uri | None:
    """What a path in the copies, of this node or another, is a copy of; None of any other path."""
    quoted = next((part for part in path.parts if f"{ESCAPE}3A{ESCAPE}2F{ESCAPE}2F" in part), None)
    if quoted is None:
        return None
    bucket = place(unquote(quoted.replace(ESCAPE, "%")))
    assert isinstance(bucket, Uri), "only a URI is quoted so"
    return bucket / "/".join(path.parts[path.parts.index(quoted) + 1 :])


def here(path: str) -> str:
    """The same path on this node, its artifact fetched if need be; a path that is in no copy, or a hub id, as it is.

    Raises StageFailed where the artifact is gone or damaged, or the store does not answer.
    """
    uri = original(Path(path))
    if uri is None:
        return path
    steps = uri.path.split("/")
    end = len(steps) - steps[::-1].index(ARTIFACTS) + 2  # the kind and the key
    artifact = Uri(uri.root, "/".join(steps[:end]), uri.query)
    if copied(artifact, check=False) is None:
        raise StageFailed(f"{artifact} is gone; run again, and it is made again")
    return str(local(uri))


def fetched(artifact: Place) -> Path:
    """Where an artifact is read on this node: its folder, or this node's copy, fetched if need be. It may not be there.

    Raises StageFailed where it is damaged, or the store does not answer.
    """
    if isinstance(artifact, Uri):
        copied(artifact, check=False)
    return local(artifact)


def copied(where: Uri, *, check: bool) -> Path | None:
    """This node's copy of the artifact at `where`; None where there is none. What is fetched is checked; `check` a copy found too.

    Raises Damaged, and StageFailed where the store does not answer.
    """
    with answering(where):
        while (text := read(where / MANIFEST)) is not None:
            try:
                return _whole(where, text, check=check)
            except Damaged:
                if read(where / MANIFEST) == text:  # else another writer's manifest has taken its place
                    raise
    return None


def _whole(where: Uri, text: bytes, *, check: bool) -> Path:
    folder = local(where)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):  # one process of a node fetches, the others wait
        same = folder.is_dir() and (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == text
        if same and not (check and (damage(folder) or missing(where, json.loads(text)))):
            return folder
        for left in folder.parent.glob(f".copy-{folder.name}-*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".copy-{folder.name}-", dir=folder.parent))
        try:
            fetch(where, text, work)
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def fetch(where: Uri, text: bytes, work: Path) -> None:
    """Every file that the manifest names, checked. Raises Damaged."""
    try:
        manifest = json.loads(text)
        lies, names = where / manifest[ATTEMPT], list(manifest["files"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(where, "its manifest is unreadable") from None

    def copy_here(name: str) -> None:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            copy(filesystem(lies / name), filesystem(work / name))
        except FileNotFoundError:
            raise _damaged(where, f"{name} is missing") from None

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(copy_here, names))
    (work / MANIFEST).write_bytes(text)
    if problem := damage(work):
        raise _damaged(where, problem)


def missing(where: Uri, manifest: dict[str, Any]) -> str | None:
    """What a listing shows: a file that is gone, or has another length; None where all are there."""
    there = files_in(where / manifest[ATTEMPT])
    return next((f"{name} is missing or cut" for name, size in manifest["sizes"].items() if there.get(name) != size), None)


def _damaged(where: Uri, problem: str) -> Damaged:
    return Damaged(f"{where}: {problem}; run again, and it is made again")


def send(folder: Path, where: Uri, names: list[str]) -> None:
    """These files of a folder, under `where`. Raises StageFailed where the store does not answer."""
    with answering(where), ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda name: copy(filesystem(folder / name), filesystem(where / name)), names))


@contextmanager
def filled(where: Place) -> Iterator[Path]:
    """A new folder to be filled, which is not made yet: the place itself, or one whose files are sent there."""
    if isinstance(where, Path):
        yield where
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / where.name
        yield folder
        send(folder, where, list(files_in(folder)))


def mirror(folder: Path, where: Place, *names: str) -> None:
    """Send these files of a run's folder to its place; one that lies there already stays as it is."""
    if isinstance(where, Uri):
        send(folder, where, list(names))


def gathered(where: Place) -> Path:
    """A run's folder on this node: itself, or all its files fetched."""
    if isinstance(where, Path):
        return where
    folder = local(where)
    with answering(where):
        for name in files_in(where):
            write(folder / name, read(where / name) or b"")
    return folder


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for the file's lock and hold it."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
