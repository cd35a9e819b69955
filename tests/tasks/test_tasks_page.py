"""docs/tasks.md: its configs are configs, and it names every key of every task."""

import re
from pathlib import Path

import pytest
import yaml

from raw2s.config import RunConfig
from raw2s.tasks import TASKS

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
CONFIGS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: yaml.safe_load(text)["name"])
def test_a_config_of_the_page_is_one(text):
    assert RunConfig.model_validate(yaml.safe_load(text)).task.name in TASKS


def test_three_configs_were_found():
    assert len(CONFIGS) == 3


@pytest.mark.parametrize("name", TASKS)
def test_every_key_is_explained(name):
    assert f"`{name}`" in PAGE
    for key in TASKS[name].section.model_fields:
        assert f"`{key}" in PAGE, f"{name}: {key}"
