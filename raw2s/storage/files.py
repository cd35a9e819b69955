"""Files of a place, by pyarrow: a URI's are read and written as whole objects, a folder's through the disk.

An object that is being written is seen by nobody before it is whole, in S3 and in what speaks like it.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from raw2s.errors import StageFailed
from raw2s.storage.uri import Place, Uri

AT_ONCE = 8
"""Files that are read or sent side by side."""


@contextmanager
def answering(where: Place) -> Iterator[None]:
    """Say in one line that a store does not answer. Raises StageFailed for it; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if not isinstance(where, Uri):
            raise
        raise StageFailed(f"storage {where}: {reason(error)}; run again once it answers") from error


def reason(error: Exception) -> str:
    """The first line of what a store says; pyarrow's go on with what it looked for."""
    return (str(error) or type(error).__name__).splitlines()[0]


@cache
def _of_bucket(root: str, query: str) -> tuple[FileSystem, str]:
    """S3 is asked for a bucket's region once."""
    found: tuple[FileSystem, str] = FileSystem.from_uri(str(Uri(root, "", query)))
    return found


def filesystem(where: Place) -> tuple[FileSystem, str]:
    """pyarrow's file system of a place, and its path there."""
    if isinstance(where, Path):
        return LocalFileSystem(), str(where)
    system, root = _of_bucket(where.root, where.query)
    return system, "/".join(filter(None, (root.rstrip("/"), where.path)))


def read(file: Place) -> bytes | None:
    """None where there is no such file."""
    system, path = filesystem(file)
    try:
        with system.open_input_stream(path) as stream:
            content: bytes = stream.read()
            return content
    except FileNotFoundError:
        return None


def exists(file: Place) -> bool:
    system, path = filesystem(file)
    (info,) = system.get_file_info([path])
    return bool(info.type == FileType.File)


def write(file: Place, content: bytes) -> None:
    """Whole or not at all, over what is there."""
    if isinstance(file, Uri):
        system, path = filesystem(file)
        with system.open_output_stream(path) as stream:
            stream.write(content)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    unfinished.write_bytes(content)
    os.replace(unfinished, file)


def files_in(folder: Place, *, deep: bool = True) -> dict[str, int]:
    """The bytes of every file under a folder, by its path there, in order; empty where there is none."""
    return {name: info.size for name, info in infos(folder, deep=deep).items()}


def infos(folder: Place, *, deep: bool = True) -> dict[str, FileInfo]:
    """As `files_in`, all that a listing says: size and time."""
    system, path = filesystem(folder)
    found = system.get_file_info(FileSelector(path, recursive=deep, allow_not_found=True))
    files = sorted((info for info in found if info.type == FileType.File), key=lambda info: info.path)
    return {info.path[len(path) :].strip("/"): info for info in files}


def folders_in(folder: Place) -> list[str]:
    """The names of the folders in a folder."""
    system, path = filesystem(folder)
    found = system.get_file_info(FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == FileType.Directory)


def remove(there: Place) -> None:
    """A folder with all in it, or a file; nothing where there is none."""
    system, path = filesystem(there)
    (info,) = system.get_file_info([path])
    if info.type == FileType.Directory:
        system.delete_dir(path)
    elif info.type == FileType.File:
        system.delete_file(path)


def copy(source: tuple[FileSystem, str], target: tuple[FileSystem, str]) -> None:
    """A folder or a file, whatever lies between."""
    copy_files(source[1], target[1], source_filesystem=source[0], destination_filesystem=target[0])


def copy_here(source: tuple[FileSystem, str], folder: Path) -> None:
    """A folder as the new `folder`; on one disk its files are the same ones under a second name, which takes no room."""
    if isinstance(source[0], LocalFileSystem):
        shutil.copytree(source[1], folder, copy_function=_linked)
    else:
        folder.mkdir(parents=True)
        copy(source, filesystem(folder))


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)
