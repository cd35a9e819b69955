"""What METHODS and LOSSES hold: objects that are whole or refused, their sections, names and titles."""

import dataclasses

import pytest
from pydantic import TypeAdapter, ValidationError

from raw2s.labels.targets import Labeled
from raw2s.methods import (
    LOSSES,
    METHODS,
    AnyMethod,
    AnyPreferenceLoss,
    GivenWeights,
    Loss,
    Method,
    label_of,
    loss_of,
    method_of,
    title_of,
)
from raw2s.methods.cross_entropy import CrossEntropySection, gamma
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.method import PREFERENCE_LOSSES

METHOD, PREFERENCE = TypeAdapter(AnyMethod), TypeAdapter(AnyPreferenceLoss)
EVERY_LOSS = LOSSES | PREFERENCE_LOSSES
NEEDED = {"single": {"teacher": "gpt2"}}
"""What a section cannot do without."""


def required(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]


def section(name: str, **more):
    return METHOD.validate_python({"method": name, **NEEDED.get(name, {}), **more})


@pytest.mark.parametrize("missing", required(Method))
def test_a_method_without_a_part_is_no_method(missing):
    parts = {key: getattr(METHODS["naive"], key) for key in required(Method) if key != missing}
    with pytest.raises(TypeError, match=missing):
        Method(**parts)


@pytest.mark.parametrize("missing", required(Loss))
def test_a_loss_without_a_part_is_no_loss(missing):
    parts = {key: getattr(LOSSES["ce"], key) for key in required(Loss) if key != missing}
    with pytest.raises(TypeError, match=missing):
        Loss(**parts)


def test_a_method_learns_from_something_and_a_loss_has_a_formula():
    with pytest.raises(ValueError, match="give from_text, from_classes or both"):
        dataclasses.replace(METHODS["naive"], from_text=None, from_classes=None)
    with pytest.raises(ValueError, match="give over_tokens, over_classes or over_pairs"):
        dataclasses.replace(LOSSES["ce"], over_tokens=None, over_classes=None)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_section_is_its_own_and_its_loss_its_usual_one(name):
    made = section(name)
    assert type(made) is METHODS[name].section and method_of(made) is METHODS[name]
    assert made.loss.name == METHODS[name].loss and type(made.loss) is LOSSES[METHODS[name].loss].section
    assert METHOD.validate_python(METHOD.dump_python(made, mode="json")) == made, "read as it was written"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_method_takes_every_loss_by_its_name_alone(name, loss):
    made = section(name, loss=loss)
    assert type(made.loss) is LOSSES[loss].section and loss_of(made.loss) is LOSSES[loss]
    assert made == section(name, loss={"name": loss})
    assert label_of(made).endswith(f"+{loss}") == (loss != METHODS[name].loss)
    assert title_of(made).endswith(f"({LOSSES[loss].title(made.loss)})")


def test_a_loss_without_a_name_is_the_methods_own():
    assert section("bayesian", loss={"kl_weight": 0.5}).loss == section("bayesian", loss={"name": "edl", "kl_weight": 0.5}).loss


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"method": "naive", "loss": "edll"}, "'edll' is unknown; did you mean edl?"),
        ({"method": "naive", "loss": {"kl_weight": 1}}, "kl_weight"),
        ({"method": "naive", "loss": "cdpo"}, "'cdpo' is unknown"),
        ({"method": "ravn"}, "'ravn' is unknown; did you mean raven?"),
        ({"method": "raven", "weight_rate": 0}, "weight_rate"),
        ({"method": "single"}, "teacher"),
        ({"method": "naive", "loss": {"name": "reverse_kl", "floor": 0}}, "floor"),
    ],
)
def test_what_a_section_cannot_be_is_refused(tree, message):
    with pytest.raises((ValidationError, ValueError), match=message.replace("?", r"\?")):
        METHOD.validate_python(tree)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_a_preference_loss_is_named_as_others_are(name):
    made = PREFERENCE.validate_python(name)
    assert type(made) is PREFERENCE_LOSSES[name].section and loss_of(made) is PREFERENCE_LOSSES[name]
    assert PREFERENCE.validate_python({"name": name, "beta": 10.0}).beta == 10.0
    assert PREFERENCE.validate_python({}).name == "cdpo"


def test_titles_and_labels_tell_all_apart():
    titles = [title_of(section(name)) for name in METHODS]
    assert len(set(titles)) == len(titles) and "Bayesian multi-weak (EDL)" in titles and "RAVEN (CE)" in titles
    assert [label_of(section(name)) for name in METHODS] == ["single:gpt2" if name == "single" else name for name in METHODS]
    losses = [loss.title(loss.section(name=name)) for name, loss in EVERY_LOSS.items()]
    assert len(set(losses)) == len(losses)
    for name, loss in EVERY_LOSS.items():
        made = loss.section(name=name)
        assert loss.card(made) and "\n" not in loss.card(made)


GIVEN = GivenWeights(names=("a", "gpt2"), loss={"a": 0.25, "gpt2": 0.75}, joint={"a": 1.0, "gpt2": 0.0})


def test_a_method_reads_only_its_own_weights():
    """What it does not read is in no student's key."""
    read = {name: method.weights(section(name), GIVEN) for name, method in METHODS.items()}
    assert read["naive"] == read["bayesian"] == read["raven"] == GIVEN.loss
    assert read["joint"] == GIVEN.joint
    assert read["single"] == {"a": 0.0, "gpt2": 1.0}
    assert all(read[name] == {name: 1.0} for name in ("majority", "dawid_skene", "mace"))


def texts():
    """Prompt 1: two teachers disagree. Prompt 2: they agree."""
    answers = {1: [("x", [0, 1]), ("y", [1, 0])], 2: [("x", [0, 0])]}
    return [
        {"id": i, "candidate": k, "text": text, "rank": rank, "tokens": [2, 2], "words": [[-0.1 * (k + 1), -0.1]] * 2}
        for i, own in answers.items()
        for k, (text, rank) in enumerate(own)
    ]


def labeled(table, **more):
    return Labeled(prompts={1: "a\n", 2: "b\n"}, table=table, weights=[0.25, 0.75], teachers=["a", "gpt2"], **more)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.from_text is not None])
def test_rows_of_text_hold_targets_whose_weights_sum_to_one(name):
    method, made = METHODS[name], section(name)
    rows = method.from_text(labeled(texts()), made)
    assert [row["id"] for row in rows] == [1, 2]
    for row in rows:
        assert sum(sum(target["weights"]) for target in row["targets"]) == pytest.approx(1)
        assert all(("teacher" in target) == (method.learned is not None) for target in row["targets"])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.from_classes is not None])
def test_rows_of_classes_hold_a_distribution(name):
    method, made = METHODS[name], section(name)
    table = [{"id": 1, "logits": [[0.0, 2.0], [1.0, 0.0]]}, {"id": 2, "logits": [None, [0.0, 3.0]]}]
    rows = method.from_classes(labeled(table), made)
    assert [row["id"] for row in rows] == [1, 2]
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1)
        assert ("by_teacher" in row) == (method.learned is not None)


def test_only_a_loss_linear_in_its_target_lets_teachers_share_a_sequence():
    assert {name for name, loss in LOSSES.items() if loss.linear(loss.section(name=name))} == {"ce", "edl"}
    assert not LOSSES["edl"].linear(LOSSES["edl"].section(form="soft"))


def test_who_makes_nothing_of_a_form_says_so():
    assert METHODS["joint"].from_classes is None
    assert {name for name, method in METHODS.items() if method.from_text is None} == {
        "majority",
        "dawid_skene",
        "mace",
        "moments",
    }
    assert {name for name, method in METHODS.items() if method.crowd is not None} == {"majority", "dawid_skene", "mace"}


def test_the_authors_schedule_jumps_by_itself_and_never_silently_not():
    for section in (CrossEntropySection, EvidentialSection):
        theirs = section.model_validate({"gamma_max": 0.2, "gamma_schedule": "authors"})
        assert [gamma(theirs, step, 100)["gamma"] for step in (20, 30)] == [pytest.approx(0.04), 0.2]
        with pytest.raises(ValueError, match="jumps to gamma_max after gamma_warmup_fraction of the run"):
            section.model_validate({"gamma_max": 0.2, "gamma_schedule": "authors", "gamma_warmup_fraction": 1})
        assert section.model_validate({"gamma_max": 0.2}).gamma_warmup_fraction == 1


def test_a_smoothed_student_is_called_so():
    plain, smoothed = section("naive"), section("naive", loss={"label_smoothing": 0.1})
    assert title_of(smoothed) != title_of(plain)
    assert "label smoothing 0.1" in title_of(smoothed)
    assert "label smoothing 0.1" in loss_of(smoothed.loss).card(smoothed.loss)
