"""A student's card says what it learned from, what it is worth, and what transformers alone cannot give."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tiny_students import EDL, sheet_of

from raw2s.results import Ceiling, OnB, Results, Student, Teacher
from raw2s.use.card import write_card

SYSTEM = {"form": "classes", "ci95": (0.5, 0.7)}


def results() -> Results:
    labels = OnB(score=None, ci95=(None, None), per_seed=[], items=[10], missing=[0], ids_not_in_b=[0], annotators=[1])
    return Results(
        run="tiny",
        task="own",
        form="classes",
        metric="accuracy",
        metric_title="accuracy",
        credit="Mails made for a test",
        licences=["tiny-llama: cc-by-4.0, as its card says"],
        notes=["2 of 60 prompts to learn from repeat another"],
        seeds=[1, 2],
        test_examples=100,
        teachers=[
            Teacher(name="gpt2", stage="teacher/gpt2", title="teacher gpt2", score=0.612, per_seed=[0.612], **SYSTEM),
            Teacher(name="people", stage="labels/people", title="people", form="classes", on_b=labels),
        ],
        ceiling=Ceiling(name="tiny-llama", stage="ceiling", title="ceiling", score=0.9, per_seed=[0.9], **SYSTEM),
        baseline=None,
        students=[
            Student(
                stage="student/0-bayesian", title="Bayesian multi-weak (EDL)", method="bayesian", aux=True, confidence=True,
                score=0.707, per_seed=[0.75, 0.664], pgr=None, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=["gpt2"],
                best_teacher="gpt2", over_best=0.1, over_best_ci95=(0.0, 0.2), **SYSTEM,
            )
        ],
        environment={},
        stages=[],
    )  # fmt: skip


def card_of(folder: Path, **changes: object) -> ModelCard:
    write_card(folder, sheet_of(student="student/0-bayesian@1", **changes), results(), items=2000)
    return ModelCard.load(folder / "README.md")


def test_it_has_data_teachers_scores_limits_and_licence(tmp_path):
    card = card_of(tmp_path)
    (score,) = card.data.eval_results
    assert (score.metric_type, score.metric_value, card.data.license) == ("accuracy", 0.75, "cc-by-4.0")
    assert card.data.base_model is None  # a built-in model has no page on the hub
    for said in (
        "Bayesian multi-weak (EDL) with soft labels and auxiliary loss, of `tiny-llama`",
        "2,000 items labeled by the teachers",
        "4 examples of devel",
        "- 2 of 60 prompts to learn from repeat another",
        "| teacher gpt2 | 0.612 [0.500, 0.700], on test |",
        "| people | unknown |",
        "learned from gpt2",
        "| this model | 0.750 [0.700, 0.800] |",
        "| the mean of 2 seeds | 0.707 [0.500, 0.700] |",
        "## Limits",
        "- data: Mails made for a test",
        '"{title}: {body}\\n"',
    ):
        assert said in card.text


def test_a_base_model_of_the_hub_is_named_with_its_id_and_no_licence_of_ours(tmp_path):
    data = card_of(tmp_path, base_model="org/model").data
    assert (data.base_model, data.license) == ("org/model", None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "gives the same probabilities"),
        ({"loss": EDL}, "That is not what this model says"),
        ({"chat": True}, "does not apply the chat template"),
        ({"form": "text", "classes": []}, "no probability of a word"),
        ({"form": "text", "classes": [], "loss": EDL}, "a softmax's, where this model says a Dirichlet"),
    ],
)
def test_it_says_what_a_pipeline_cannot_give(tmp_path, changes, said):
    of_pipeline = card_of(tmp_path, **changes).text.partition("## What transformers alone gives")[2].partition("##")[0]
    assert said in of_pipeline
    assert (said == "gives the same probabilities") == ("same probabilities" in of_pipeline)
