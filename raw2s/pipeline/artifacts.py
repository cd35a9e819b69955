"""The artifact store: one folder per stage result, keyed by what determines it, whole or not at all.

    <root>/<kind>/<key>/manifest.json + files

A key is a hash of the stage's settings and its inputs' keys, so a second run, a sweep trial or a run with one more
teacher finds what did not change. A folder is written under a temporary name and renamed when its manifest is in it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from raw2s import __version__
from raw2s.storage.manifest import MANIFEST, damage, described_files

LOCK = ".lock"
LIBRARIES = ("ray", "torch", "transformers", "deepspeed", "numpy")


@dataclass(frozen=True)
class Artifact:
    """A finished folder and what its manifest says."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Artifact":
        return cls(folder, json.loads((folder / MANIFEST).read_text()))

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest["metrics"]


def artifact_key(kind: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """16 hex digits over a stage's kind, version, settings and inputs' keys."""
    text = json.dumps([kind, version, settings, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ArtifactStore:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, kind: str, key: str, warn: Callable[[str], None]) -> Artifact | None:
        """The finished artifact; None when there is none. A damaged one is moved aside, saying so through `warn`."""
        folder = self.root / kind / key
        if not folder.is_dir():
            return None
        problem = damage(folder)
        if problem is None:
            return Artifact.read(folder)
        aside = folder.with_name(f"{key}.damaged-{time.time_ns()}")
        os.replace(folder, aside)
        warn(f"{kind}/{key}: {problem}; building it again (the damaged folder is kept as {aside.name})")
        return None

    def finished(self, kind: str) -> Iterator[Artifact]:
        """The undamaged artifacts of a kind, in the order of their keys."""
        for folder in sorted((self.root / kind).glob("[!.]*")):
            if damage(folder) is None:
                yield Artifact.read(folder)

    def create(self, kind: str, key: str, described: Mapping[str, Any], fill: Callable[[Path], dict[str, Any]]) -> Artifact:
        """Let `fill` write into a temporary folder and return what the manifest says of it, then publish it in one rename.

        `described` goes into the manifest too: the settings and the inputs' keys.
        """
        parent = self.root / kind
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent, key)
        work, lock = _own_folder(parent, key)
        try:
            start = time.perf_counter()
            filled = fill(work)
            manifest = {
                "kind": kind,
                "key": key,
                **described,
                **filled,
                "seconds": round(time.perf_counter() - start, 3),
                "versions": versions(),
                **described_files(work, without=LOCK),
            }
            text = json.dumps(manifest, indent=1, default=str)
            (work / MANIFEST).write_text(text)
            folder = parent / key
            try:
                os.replace(work, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                shutil.rmtree(work, ignore_errors=True)  # another run finished first, may delete it too; its result is ours
            (folder / LOCK).unlink(missing_ok=True)
            _remove_abandoned(parent, key)  # again: a killed process may have been alive above, as a trial that Tune stopped
            return Artifact.read(folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            lock.close()

    @contextmanager
    def parts(self, kind: str, key: str) -> Iterator[Path]:
        """A folder for what a stage finishes on its way: it outlives a stage cut off, and goes when the stage is done.

        A temporary one while another run makes the same stage and holds it.
        """
        folder = self.root / kind / f".{key}.parts"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _locked(folder)
        except OSError:
            own, lock = _own_folder(folder.parent, key)
            try:
                yield own
            finally:
                shutil.rmtree(own, ignore_errors=True)
                lock.close()
            return
        with lock:
            try:
                yield folder
            except BaseException:
                if [file.name for file in folder.iterdir()] == [LOCK]:
                    shutil.rmtree(folder)
                raise
            # Out of the way in one step: nothing goes on with half of it.
            done = folder.replace(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
            shutil.rmtree(done, ignore_errors=True)


def versions() -> dict[str, str]:
    """raw2s and the libraries that numbers depend on. raw2s by attribute: a Ray job's working directory is not installed."""
    return {"raw2s": __version__, **{name: version(name) for name in LIBRARIES}}


def _own_folder(parent: Path, key: str) -> tuple[Path, IO[str]]:
    """A new hidden folder of this process, and its lock, which tells a killed run's from a living one's; closed, it may be swept."""
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    folder.chmod(0o755)  # mkdtemp makes it 0700; an artifact is read by other nodes' users too
    lock = _locked(folder)
    return folder.rename(parent / f".{key}-{folder.name}"), lock  # only now: `_remove_abandoned` must not meet it unlocked


def _locked(work: Path, mode: str = "w") -> IO[str]:
    lock = (work / LOCK).open(mode)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def is_held(folder: Path) -> bool:
    """Whether a living process fills it."""
    try:
        _locked(folder, "r+").close()  # "w" would make the file anew in a folder that another process is deleting
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _remove_abandoned(parent: Path, key: str) -> None:
    """Delete what killed runs left of this stage: hidden folders whose lock nobody holds."""
    for left in parent.glob(f".{key}-*"):
        if not is_held(left):
            shutil.rmtree(left, ignore_errors=True)
