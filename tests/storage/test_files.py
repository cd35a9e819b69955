"""The same few functions on a disk and on a store of objects."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raw2s.storage.files import copy, copy_here, exists, files_in, filesystem, folders_in, read, remove, write

FOLDERS = iter(range(10**6))
written = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=3, max_size=3).map("/".join), st.binary(max_size=20), max_size=6
)


@pytest.fixture(params=["disk", "objects"])
def folder(request, tmp_path):
    root = tmp_path if request.param == "disk" else request.getfixturevalue("bucket") / "files"
    return root / str(next(FOLDERS))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=written)
def test_what_was_written_is_listed_read_copied_and_removed(folder, tmp_path, content):
    folder = folder / str(next(FOLDERS))
    for name, own in content.items():
        write(folder / name, b"before")
        write(folder / name, own)
    assert files_in(folder) == {name: len(content[name]) for name in sorted(content)}
    assert {name: read(folder / name) for name in content} == content
    assert folders_in(folder) == sorted({name[0] for name in content})
    assert all(exists(folder / name) for name in content)
    if content:
        here = tmp_path / str(next(FOLDERS))
        copy_here(filesystem(folder), here)
        assert {name: (here / name).read_bytes() for name in content} == content
        assert files_in(folder) == {name: len(content[name]) for name in sorted(content)}, "it stays where it was"
    remove(folder)
    assert files_in(folder) == {}
    if content:
        assert {name: (here / name).read_bytes() for name in content} == content


def test_what_is_not_there_is_none_and_may_be_removed(folder):
    assert read(folder / "a") is None
    assert not exists(folder / "a")
    assert not exists(folder)
    assert folders_in(folder) == []
    remove(folder)


def test_a_file_is_copied_over_another(folder, tmp_path):
    (tmp_path / "here").write_bytes(b"new")
    write(folder / "there", b"old")
    copy(filesystem(tmp_path / "here"), filesystem(folder / "there"))
    assert read(folder / "there") == b"new"
