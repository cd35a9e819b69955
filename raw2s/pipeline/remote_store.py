"""The artifact store under a URI: the same functions as of one in a folder, which it keeps as this node's copies.

    <root>/<kind>/<key>/manifest.json
    <root>/<kind>/<key>/<attempt>/ files

A store of objects has no rename. So a stage fills a folder of the copies; its files are sent under a prefix that no other writer has;
the manifest that names the prefix comes last. Who reads trusts manifests alone and checks what they name.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raw2s.pipeline.artifacts import Artifact, ArtifactStore
from raw2s.pipeline.lease import leased
from raw2s.storage import Place, Uri
from raw2s.storage.copies import ATTEMPT, Damaged, copied, local, send
from raw2s.storage.files import answering, folders_in, read, remove, write
from raw2s.storage.manifest import MANIFEST


class RemoteStore:
    def __init__(self, root: Uri) -> None:
        self.root = root
        self.copies = ArtifactStore(local(root))

    def find(self, kind: str, key: str, warn: Callable[[str], None]) -> Artifact | None:
        """The finished artifact, as this node's copy; None where there is none. A damaged one is withdrawn, saying so through `warn`."""
        where = self.root / kind / key
        try:
            folder = copied(where, check=True)
        except Damaged as error:
            withdrawn = f"manifest.damaged-{time.time_ns()}.json"
            with answering(where):
                write(where / withdrawn, read(where / MANIFEST) or b"")
                remove(where / MANIFEST)
            warn(f"{str(error).partition(';')[0]}; building it again (its manifest is kept as {withdrawn})")
            return None
        return None if folder is None else Artifact.read(folder)

    def finished(self, kind: str) -> Iterator[Artifact]:
        """The undamaged artifacts of a kind, in the order of their keys."""
        with answering(self.root):
            keys = folders_in(self.root / kind)
        for key in keys:
            try:
                folder = None if key.startswith(".") else copied(self.root / kind / key, check=True)
            except Damaged:
                continue
            if folder is not None:
                yield Artifact.read(folder)

    def create(self, kind: str, key: str, described: Mapping[str, Any], fill: Callable[[Path], dict[str, Any]]) -> Artifact:
        """As `ArtifactStore.create`, and send it. What this node made before and was cut off in sending is sent as it is."""
        made = self.copies.find(kind, key, lambda text: None) or self.copies.create(kind, key, described, fill)
        where, attempt = self.root / kind / key, uuid.uuid4().hex[:12]
        with answering(where):
            if read(where / MANIFEST) is None:
                send(made.folder, where / attempt, list(made.manifest["files"]))
                text = json.dumps({**made.manifest, ATTEMPT: attempt}, indent=1).encode()
                if read(where / MANIFEST) is None:
                    write(where / MANIFEST, text)
                else:  # another run sent the same stage first; its result is ours
                    remove(where / attempt)
                if read(where / MANIFEST) == text:
                    write(made.folder / MANIFEST, text)
        folder = copied(where, check=False)
        assert folder is not None, "a manifest was written"
        return Artifact.read(folder)

    @contextmanager
    def parts(self, kind: str, key: str) -> Iterator[Place]:
        """A prefix for what a stage finishes on its way: it outlives a stage cut off, and goes when the stage is done.

        A temporary one while another run makes the same stage and holds it.
        """
        folder = self.root / kind / f".{key}.parts"
        with leased(folder) as mine:
            own = folder if mine else self.root / kind / f"{folder.name}-{uuid.uuid4().hex}"
            try:
                yield own
            except BaseException:
                if not mine:
                    remove(own)
                raise
            with answering(own):
                remove(own)


Store = ArtifactStore | RemoteStore


def open_store(root: Place) -> Store:
    """The artifact store in a folder or under a URI."""
    return RemoteStore(root) if isinstance(root, Uri) else ArtifactStore(root)
