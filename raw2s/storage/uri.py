"""Storage by its name: a path of the file system, or the URI of a store that is not a disk, such as s3://bucket/runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

ENVIRONMENT = "give credentials by the environment (AWS_ACCESS_KEY_ID and the like) or the machine's role"
OPTIONS = ("region", "scheme", "endpoint_override")
"""What may stand after the question mark; anything else might be a secret, which would be written into configs and logs."""


@dataclass(frozen=True)
class Uri:
    """A prefix or an object of a store: all that `Path` is used for where a path is only joined and shown."""

    root: str
    """Scheme and bucket: s3://bucket."""
    path: str
    """Below it, without slashes at its ends."""
    query: str = ""

    def __truediv__(self, name: str) -> "Uri":
        return replace(self, path=f"{self.path}/{name}".strip("/"))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.root, self.path))) + (f"?{self.query}" if self.query else "")

    def resolve(self) -> "Uri":
        """Itself: it is no other from another folder."""
        return self

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "Uri":
        return replace(self, path=self.path.rpartition("/")[0])


ARTIFACTS = "artifacts"
"""Under a storage the folder of its artifacts, <kind>/<key> in it."""

Place = Path | Uri
"""A folder or a file, wherever it lies."""


def place(named: "str | Path | Uri") -> Place:
    """What is named. Raises ValueError, in one line without the secret, for a URI that holds one, or has no bucket."""
    if not isinstance(named, str) or "://" not in named:
        return named if isinstance(named, Uri) else Path(named)
    address = urlsplit(named)
    if address.scheme == "file":
        return Path(unquote(address.path))
    user, _, host = address.netloc.rpartition("@")
    shown = f"{address.scheme}://{host}{address.path}"
    if (user and address.scheme == "s3") or ":" in user:
        raise ValueError(f"{shown} is given with credentials in it; take them out and {ENVIRONMENT}")
    for option, _ in parse_qsl(address.query, keep_blank_values=True):
        if option not in OPTIONS:
            raise ValueError(f"{shown} is given with {option} in it, and takes {', '.join(OPTIONS)} alone; {ENVIRONMENT}")
    if not address.netloc:
        raise ValueError(f"{shown} names no bucket; write {address.scheme}://bucket/folder")
    return Uri(root=f"{address.scheme}://{address.netloc}", path=address.path.strip("/"), query=address.query)
