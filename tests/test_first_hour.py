"""docs/first_hour.md: it says what was measured, took the steps that docs/tutorial.md has now, and stays under an hour."""

import json

import first_hour
import pytest
from first_hour import Step


@pytest.fixture(scope="module")
def measured():
    return json.loads(first_hour.MEASURED.read_text(encoding="utf-8"))


def test_the_page_says_what_was_measured(measured):
    assert first_hour.PAGE.read_text(encoding="utf-8") == first_hour.page_of(measured)


def test_the_steps_are_the_commands_of_the_tutorial_and_no_others(measured):
    said = list(first_hour.steps_of(first_hour.TUTORIAL.read_text(encoding="utf-8")))
    assert [Step(section=own["section"], command=own["command"], python=own["python"]) for own in measured["steps"]] == said


def test_from_clone_to_asking_a_human_in_less_than_an_hour(measured):
    steps = measured["steps"]
    assert measured["seconds"] == pytest.approx(sum(step["seconds"] for step in steps), abs=0.1)
    assert measured["seconds"] < 3600
    commands = [step["command"] for step in steps]
    way = [
        "make env",
        "raw2s demo",
        "raw2s init",
        "raw2s check config.yaml",
        "raw2s run config.yaml",
        "raw2s export",
        "raw2s predict",
    ]
    places = [max(i for i, command in enumerate(commands) if command.startswith(start)) for start in way]
    assert places == sorted(places)
    assert len([word for word in commands[places[2]].split() if word.endswith(".csv")]) == 3, "three labelers"
    assert "--accuracy" in commands[places[-1]] and "--ask" in commands[places[-1]]
    ended = "\n".join(steps[places[-1]]["output"])
    assert "abstains" in ended and "ask.jsonl: the 20 most doubtful" in ended


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
