"""`raw2s publish`, with the hub's client replaced."""

from pathlib import Path
from typing import Any

import pytest

from raw2s.cli import main


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the hub is asked, and nothing sent."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self: Any, repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return f"https://huggingface.co/{repository}"

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **options: asked.append(("upload", options)))
    return asked


def test_a_folder_is_uploaded_to_a_private_repository(folder_of, uploads, capsys):
    folder = folder_of()
    assert main(["publish", str(folder), "org/student"]) == 0
    (repository, options), (_, upload) = uploads
    assert (repository, options["private"]) == ("org/student", True)
    assert (upload["repo_id"], Path(upload["folder_path"])) == ("org/student", folder)
    assert "https://huggingface.co/org/student, private" in capsys.readouterr().out


def test_a_folder_without_its_sheet_is_refused_before_the_hub_is_asked(classifier, uploads, capsys):
    assert main(["publish", str(classifier), "org/student"]) == 2
    assert uploads == []
    assert "no raw2s.json here" in capsys.readouterr().err


def test_what_the_hub_refuses_is_one_line(folder_of, uploads, monkeypatch, capsys):
    def refuse(self: Any, *_: object, **__: object) -> None:
        raise PermissionError("401 Unauthorized\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    assert main(["publish", str(folder_of()), "org/student"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("raw2s publish: org/student: the hub does not take it (401 Unauthorized); set HF_TOKEN")
    assert error.count("\n") == 1
