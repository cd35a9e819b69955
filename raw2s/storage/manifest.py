"""What makes an artifact whole: its manifest, which is written last and has every file's bytes and sum."""

import hashlib
import json
from pathlib import Path

MANIFEST = "manifest.json"


def described_files(folder: Path, *, without: str) -> dict[str, dict[str, str] | dict[str, int]]:
    """Of a manifest: `files`, each one's SHA-256, and `sizes`, its bytes, by path in the folder."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != without]
    names = [str(file.relative_to(folder)) for file in found]
    return {
        "files": dict(zip(names, map(checksum, found), strict=True)),
        "sizes": {name: file.stat().st_size for name, file in zip(names, found, strict=True)},
    }


def damage(folder: Path) -> str | None:
    """What is wrong with a published folder, or None."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is missing or unreadable"
    for name, expected_sum in expected:
        if not (folder / name).is_file():
            return f"{name} is missing"
        if checksum(folder / name) != expected_sum:
            return f"{name} has changed since it was written"
    return None


def checksum(file: Path) -> str:
    """SHA-256 of its content, as hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
