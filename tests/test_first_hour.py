"""benchmarks/first_hour.py takes the steps that docs/tutorial.md has, and stops where one fails."""

import first_hour
import pytest
from first_hour import Step


def test_what_a_page_shows_is_told_from_what_is_typed():
    page = "# T\n\n## One\n\n```\nmake env\n. .venv/bin/activate\n```\n```\npip install x\n```\n## Two\n```python\na = 1\n```\n```\nprompt   text\n```\n"
    assert list(first_hour.steps_of(page)) == [
        Step(section="One", command="make env"),
        Step(section="One", command=". .venv/bin/activate"),
        Step(section="Two", command="a = 1\n", python=True),
    ]


def test_a_step_that_fails_ends_it_with_what_it_said(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)ended with 3 after.*no luck"):
        first_hour.taken(Step(section="One", command="printf 'no luck' >&2; exit 3"), tmp_path)


def test_of_a_step_the_last_lines_are_kept_without_the_folder_s_name(tmp_path):
    step = first_hour.taken(Step(section="One", command="printf '%s\\n' $(seq 30) $PWD/runs"), tmp_path)
    assert step["output"] == [*map(str, range(12, 31)), "~/raw2s/runs"]
    assert step["lines"] == 31
