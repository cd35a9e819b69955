"""`task.chat: true`: every model reads a prompt as a user's message in its own chat template, in training and in labeling."""

from pathlib import Path

import pytest
from tiny_runs import tiny_run

from raw2s.config import parse_config
from raw2s.decoding.beams import generate_beams
from raw2s.decoding.scoring import class_logits, target_logprobs
from raw2s.decoding.tokens import encode_prompt
from raw2s.errors import ConfigError
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.models.load import load_model, load_tokenizer
from raw2s.models.source import model_fingerprint
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check
from raw2s.pipeline.stage import Work
from raw2s.training.batching import tokenize_row

TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}[assistant]"
PROMPT, WRITTEN = "is it true?", "[user] is it true?[assistant]"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-gpt2 with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    load_model("tiny-gpt2", "text").save_pretrained(folder)
    tokenizer = load_tokenizer("tiny-gpt2")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def own_run(folder: Path, model: str, *, chat: bool) -> dict:
    for part in ("train", "devel", "test"):
        lines = "".join(f'"{part} question {i}",{"yes" if i % 2 else "no"}\n' for i in range(64))
        (folder / f"{part}.csv").write_text("question,answer\n" + lines)
    task = {"name": "own", "form": "classes", "prompt": "{question}", "answer": "answer", "metric": "accuracy", "chat": chat}
    files = {key: str(folder / f"{part}.csv") for key, part in (("train", "train"), ("validation", "devel"), ("test", "test"))}
    return tiny_run(
        folder, task=task | files, teachers=[{"name": "one", "model": model}], student={"model": model},
        methods=[{"method": "naive"}], teacher_training={"epochs": 1, "batch_size": 8}, student_training={"batch_size": 8},
    )  # fmt: skip


def test_a_prompt_is_read_through_the_template_wherever_it_is_read(chat_model):
    model, tokenizer = load_model(str(chat_model), "text"), load_tokenizer(str(chat_model))
    classifier = load_model(str(chat_model), "classes", ("a", "b"))
    row = TrainingRow(id=0, prompt=PROMPT, targets=[TextTarget(text="yes", weights=[1.0])])
    ids = encode_prompt(tokenizer, WRITTEN)
    assert tokenize_row(row, tokenizer, "targets", chat=True).tree.ids[: len(ids)] == ids
    for read in (
        lambda prompt, chat: [s.logprobs for s in target_logprobs(model, tokenizer, [prompt], [["yes", "no"]], chat=chat)[0]],
        lambda prompt, chat: generate_beams(model, tokenizer, [prompt], beams=2, max_new_tokens=4, chat=chat),
        lambda prompt, chat: class_logits(classifier, tokenizer, [prompt], chat=chat).tolist(),
    ):
        assert read(PROMPT, True) == read(WRITTEN, False) != read(PROMPT, False)


@pytest.mark.parametrize("chat", [True, False])
def test_the_task_tells_actors_and_training(chat_model, tmp_path, monkeypatch, chat):
    config = parse_config(own_run(tmp_path, str(chat_model), chat=chat))
    check(config)
    plan = plan_stages(config, 1)
    jobs = []
    monkeypatch.setattr("raw2s.training.fit.fit", lambda job, *_, **__: jobs.append(job) or {})
    teacher = plan.teachers["one"].labeler
    folder = tmp_path / "out"
    folder.mkdir()
    work = Work(inputs={}, out=folder, parts=folder)
    monkeypatch.setattr(Work, "folder", lambda self, stage: folder)
    for examples in (plan.testset, plan.validation, teacher.model.split):
        examples.run(Work(inputs={}, out=folder, parts=folder))
    teacher.model.run(work)
    assert jobs[0].chat is chat
    assert teacher.pool(work).chat is chat


def test_a_model_without_a_template_is_refused(chat_model, tmp_path):
    run = own_run(tmp_path, str(chat_model), chat=True)
    with pytest.raises(ConfigError, match=r"^student\.model: tiny-gpt2 has no chat template; .* or set task\.chat: false$"):
        check(parse_config({**run, "student": {"model": "tiny-gpt2"}}))


def test_another_template_is_another_model(chat_model):
    before = model_fingerprint(str(chat_model))
    file = chat_model / "chat_template.jinja"
    file.write_text(TEMPLATE + " ")
    assert model_fingerprint(str(chat_model)) != before
    file.write_text(TEMPLATE)
    assert model_fingerprint(str(chat_model)) == before
