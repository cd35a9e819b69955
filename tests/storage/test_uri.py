"""Storage by its name, and where a node keeps copies of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.storage import Uri, place
from raw2s.storage.copies import local, original

names = st.text("ab .-_%=&é", min_size=1, max_size=6).filter(lambda name: name.strip("./ ") == name)
queries = st.sampled_from(["", "?region=eu-west-1", "?endpoint_override=127.0.0.1:9&scheme=http"])


@given(st.lists(names, max_size=4), queries)
def test_a_uri_is_joined_below_its_bucket_and_before_its_options(steps, query):
    joined = place(f"s3://bucket{query}")
    for step in steps:
        joined = joined / step
    assert str(joined) == "/".join(["s3://bucket", *steps]) + query
    if steps:
        assert (joined.name, str(joined.parent)) == (steps[-1], "/".join(["s3://bucket", *steps[:-1]]) + query)


@given(st.lists(names, min_size=1, max_size=4), queries)
def test_a_copys_path_says_what_it_is_a_copy_of(steps, query):
    uri = Uri("s3://bucket", "/".join(steps), query.removeprefix("?"))
    assert original(local(uri)) == uri
    assert "%" not in str(local(uri)).removesuffix("/".join(steps))


@pytest.mark.parametrize("path", ["runs", "/shared/runs", "a=3Ab/runs", "file:///shared/runs", Path("runs")])
def test_a_path_is_a_path_and_no_copy(path):
    found = place(path)
    assert isinstance(found, Path)
    assert local(found) == found.resolve()
    assert original(found) is None


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("s3://AKIA:hush@bucket/runs", "s3://bucket/runs is given with credentials in it; take them out and give"),
        ("s3://hush@bucket/runs", "credentials in it"),
        ("s3://bucket/runs?access_key=hush", "given with access_key in it, and takes region, scheme, endpoint_override alone"),
        ("s3://bucket/runs?secret_key=hush&region=eu", "given with secret_key in it"),
        ("s3://bucket/runs?X-Amz-Signature=hush", "given with X-Amz-Signature in it"),
        ("abfs://account:hush@container/runs", "credentials in it"),
        ("s3:///runs", "s3:///runs names no bucket; write s3://bucket/folder"),
    ],
)
def test_secrets_are_refused_and_not_repeated(named, words):
    with pytest.raises(ValueError, match="; ") as refused:
        place(named)
    assert words in str(refused.value)
    assert "hush" not in str(refused.value)
