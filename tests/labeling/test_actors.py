"""The teachers in half precision: what they answer is what they answer in single, to bf16's rounding."""

import pyarrow as pa
import pytest
import torch

from raw2s.labeling.actors import ClassActor, DoubtActor, ScoreActor, load
from raw2s.labeling.dropout import DropoutActor, Passes
from raw2s.labeling.units import Pool
from raw2s.labels.table import DOUBTS, DROPOUT_DOUBTS
from raw2s.losses.doubt import DROPOUT_MEASURES, MEASURES
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.evidential import EvidentialSection
from raw2s.section import Actors
from raw2s.tasks import task_of
from raw2s.tasks.slurp_slots import SlotsSection

PROMPTS = [example["prompt"] for example in task_of(SlotsSection(n_test=4)).held_out("test")]


def pool(precision, model="tiny-gpt2"):
    return Pool(name="teacher", model=model, actors=Actors(), precision=precision)


@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_model_has_the_pools_precision(precision, dtype):
    model, _ = load(pool(precision), "text")
    assert {weight.dtype for weight in model.parameters()} == {dtype}


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox", "tiny-llama"])
def test_scores_in_half_precision_are_near(model):
    unit = {"ids": list(range(4)), "prompts": PROMPTS, "candidates": [["set alarm", "alarm"], ["play"], ["is it", ""], ["who"]]}
    half, single = (ScoreActor(pool(precision, model))(unit) for precision in ("bf16", "fp32"))
    for a, b in zip(half, single, strict=True):
        assert a["tokens"] == b["tokens"]
        for words, expected in zip(a["words"], b["words"], strict=True):
            assert words == pytest.approx(expected, rel=0.03, abs=0.1)
            assert words != expected, "bf16 changes something, or nothing ran in it"


@pytest.mark.parametrize("loss", [None, CrossEntropySection(), EvidentialSection()], ids=["none", "ce", "edl"])
def test_doubt_is_of_every_token_and_a_dirichlets_where_the_loss_says_so(loss):
    unit = {"ids": [0, 1], "prompts": PROMPTS[:2], "candidates": [["set alarm"], [""]]}
    rows = DoubtActor(pool("fp32"), loss)(unit)
    table = pa.Table.from_pylist([{"id": i, **row} for i, row in zip(unit["ids"], rows, strict=True)], schema=DOUBTS)
    tokens = [row["tokens"][0] for row in ScoreActor(pool("fp32"))(unit)]
    for name in MEASURES:
        found = table[name].to_pylist()
        if (loss is not None and loss.name == "edl") or name in ("choice", "entropy"):
            assert [len(own) for own in found] == tokens
            assert all(value >= 0 for own in found for value in own)
        else:
            assert found == [None, None]


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")], ids=["text", "classes"])
def test_doubt_of_passes_with_dropout_comes_again_whatever_was_asked_between(classes):
    units = [{"ids": [i], "prompts": [prompt], "candidates": [["set alarm"]]} for i, prompt in enumerate(PROMPTS[:2])]
    torch.manual_seed(0)  # the classifier's head
    actor = DropoutActor(pool("fp32"), Passes(count=3, loss=EvidentialSection(), classes=classes))
    (first,), (other,), (again,) = actor(units[0]), actor(units[1]), actor(units[0])
    table = pa.Table.from_pylist([{"id": 0, **first}], schema=DROPOUT_DOUBTS)
    assert first == again != other
    tokens = 1 if classes else ScoreActor(pool("fp32"))(units[0])[0]["tokens"][0]
    entropy, disagreed = (table[name].to_pylist()[0] for name in DROPOUT_MEASURES)
    assert len(entropy) == tokens
    assert all(0 < own < whole for own, whole in zip(disagreed, entropy, strict=True))


def test_a_half_precision_classifiers_logits_are_not_rounded():
    torch.manual_seed(0)
    actor = ClassActor(pool("bf16"), ("a", "b", "c"))
    logits = torch.tensor([row["logits"] for row in actor({"ids": list(range(4)), "prompts": PROMPTS})])
    assert (logits != logits.bfloat16().float()).any()
