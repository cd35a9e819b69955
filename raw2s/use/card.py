"""The card of a student's folder: what it learned from, how, what it is worth, what it cannot do, and how to ask it."""

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from raw2s.models.source import model_source, stated_licence
from raw2s.report.systems import bounds, fraction
from raw2s.results import Results, Student
from raw2s.tasks.template import columns_of, pieces_of
from raw2s.use.sheet import Sheet

PIPELINES = {"classes": "text-classification", "text": "text-generation"}
"""Of transformers, by form."""


def write_card(folder: Path, sheet: Sheet, results: Results, items: int) -> None:
    """`README.md` of the folder; `items` are those of B that it learned from."""
    student = next(s for s in results.students if s.stage == sheet.student.partition("@")[0])
    sections = {
        "": f"{student.label}, of `{sheet.base_model}`. Made by [raw2s], stage `{sheet.student}` of the run `{sheet.run}`.",
        "Use": _use(sheet),
        "What transformers alone gives": _pipeline(sheet),
        "Data": _data(sheet, results, items),
        "Teachers": _teachers(results, student),
        "Scores": _scores(sheet, results, student),
        "Limits": _limits(sheet),
        "Licence": "\n".join(f"- {line}" for line in (f"data: {results.credit}", *results.licences)),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in sections.items())
    link = "[raw2s]: Bayesian WeakS-to-Strong, from text classification to generation"
    ModelCard(f"---\n{_data_of(sheet).to_yaml()}\n---\n\n# {sheet.task}: {student.title}\n\n{text}\n\n{link}\n").save(
        folder / "README.md"
    )


def _data_of(sheet: Sheet) -> ModelCardData:
    """What the hub shows and filters by."""
    kind = PIPELINES[sheet.form]
    score = EvalResult(
        task_type=kind,
        dataset_type=sheet.task,
        dataset_name=sheet.task,
        dataset_split="test",
        metric_type=sheet.test.metric,
        metric_name=sheet.test.title,
        metric_value=round(sheet.test.value, 4),
    )
    on_hub = not Path(model_source(sheet.base_model)).is_dir()
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=kind,
        tags=["raw2s", "weak-to-strong", sheet.task],
        base_model=sheet.base_model if on_hub else None,
        license=stated_licence(sheet.base_model),
        model_name=f"{sheet.run}/{sheet.student}",
        eval_results=[score],
    )


def _use(sheet: Sheet) -> str:
    way = "a user's message in the model's chat template" if sheet.chat else "the text that the model reads"
    return (
        f"`raw2s.json` holds all it takes: the prompt, the classes, how logits are read, the answers to devel. The prompt is {way}:\n\n"
        f"```json\n{json.dumps(sheet.prompt)}\n```\n\nA row's columns stand in braces; line ends are part of it: the model "
        'has learned no other text.\n\n```python\nimport raw2s\n\nstudent = raw2s.Student.load("this folder, or its hub id")\n'
        f"student.answer([{{{', '.join(f'{column!r}: ...' for column in columns_of(pieces_of(sheet.prompt)))}}}])\n```\n\n"
        "`raw2s predict THIS --input rows.jsonl --output answers.jsonl --accuracy 0.9`"
    )


def _pipeline(sheet: Sheet) -> str:
    kind = PIPELINES[sheet.form]
    if sheet.form == "text":
        missing = "no probability of a word or of the answer" + (
            "" if sheet.loss is None else ", and its scores are a softmax's, where this model says a Dirichlet"
        )
        return f'`pipeline("{kind}")` writes texts from the filled prompt: {missing}.'
    if sheet.loss is not None:
        return (
            f'`pipeline("{kind}")` gives the softmax of the logits. That is not what this model says: it says a Dirichlet, whose mean '
            "are its probabilities. The pipeline has neither these, nor the evidence behind them, and no threshold holds for it."
        )
    if sheet.chat:
        return f'`pipeline("{kind}")` does not apply the chat template, so its probabilities are others.'
    return f'`pipeline("{kind}", top_k=None)` gives the same probabilities for the same filled prompt; it has no threshold.'


def _data(sheet: Sheet, results: Results, items: int) -> str:
    notes = "".join(f"\n- {note}" for note in results.notes)
    devel = 0 if sheet.devel is None else len(sheet.devel.right)
    return (
        f"Task `{sheet.task}`. {items:,} items labeled by the teachers, without ground truth; {devel:,} examples of devel for the "
        f"threshold; {sheet.test.examples:,} to test on.{notes}"
    )


def _teachers(results: Results, student: Student) -> str:
    learned = f"Of the tested ones it learned from {', '.join(student.learned_from)}." if student.learned_from else ""
    rows = []
    for teacher in results.teachers:
        score, where = (teacher, "test") if teacher.on_b is None else (teacher.on_b, "what it learned from")
        worth = "unknown" if score.score is None else f"{fraction(score.score)} {bounds(score.ci95)}, on {where}"
        rows.append(f"| {teacher.title} | {worth} |")
    return "\n".join([f"| teacher | {results.metric_title} |", "|---|---|", *rows, "", learned]).rstrip()


def _scores(sheet: Sheet, results: Results, student: Student) -> str:
    rows = [f"| this model | {fraction(sheet.test.value)} {bounds(sheet.test.ci95)} |"]
    if len(results.seeds) > 1:
        rows.append(f"| the mean of {len(results.seeds)} seeds | {fraction(student.score)} {bounds(student.ci95)} |")
    if results.ceiling is not None:
        rows.append(f"| the same model on ground truth | {fraction(results.ceiling.score)} {bounds(results.ceiling.ci95)} |")
    head = [f"| {sheet.test.examples:,} test examples, 95 % intervals | {sheet.test.title} |", "|---|---|"]
    return "\n".join([*head, *rows])


def _limits(sheet: Sheet) -> str:
    of_form = (
        f"It knows {len(sheet.classes)} classes and gives one of them to any text."
        if sheet.form == "classes"
        else "It writes a text for any prompt."
    )
    return (
        f"- It learned from labels that are partly wrong, and may have learned what its teachers get wrong alike.\n- {of_form} On texts "
        "unlike those above neither its score nor a threshold holds: devel and test are of the same source.\n- A threshold is chosen on "
        "devel and flattered by that choice; check it on answers of your own."
    )
