"""The search with steps of one shape finds what the one that shrinks finds; the CUDA graph over it is tested where there is a GPU."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from raw2s.decoding import static_search as static_module
from raw2s.decoding.logits import padded_head, refill
from raw2s.decoding.scoring import continuation_logprobs
from raw2s.decoding.search import beam_search, shrinking_search
from raw2s.decoding.static_search import can_capture, static_search
from raw2s.models.load import load_model


def random_prompts(vocabulary, lengths, seed):
    """Left-padded ids and mask, (B, P)."""
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, vocabulary, (length,), generator=draw) for length in lengths]
    padded = pad_sequence(rows, batch_first=True, padding_side="left")
    return padded, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")


def assert_same(model, ids_BP, mask_BP, **options):
    expected = shrinking_search(model, ids_BP, mask_BP, **options)
    found = static_search(model, ids_BP, mask_BP, **options)
    assert torch.equal(found.final_tokens_BM, expected.tokens_BM)
    for b, tokens_M in enumerate(expected.tokens_BM.tolist()):
        for m, tokens in enumerate(tokens_M):
            assert torch.equal(found.final_ids_BMT[b, m, :tokens], expected.ids_BMT[b, m, :tokens])
    torch.testing.assert_close(found.final_score_BM, expected.mean_logprob_BM)
    return expected


@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_steps_of_one_shape_find_the_same_hypotheses(model, beams):
    model = copy.deepcopy(model).double()  # no rounding decides between beams
    prompts = random_prompts(model.config.vocab_size, [7, 1, 12, 5], seed=beams)
    endless = assert_same(model, *prompts, beams=beams, max_new_tokens=24, end_id=None)
    ended = False
    for end in endless.ids_BMT[0, 0, :4].tolist():  # tokens that the beams do come upon
        for max_new_tokens in (1, 2, 24):
            found = assert_same(model, *prompts, beams=beams, max_new_tokens=max_new_tokens, end_id=end)
        ended |= bool((found.tokens_BM < 24).any())
    assert ended, "no hypothesis has ended: the test says nothing of ends"


@torch.inference_mode()
@pytest.mark.parametrize("padded", [False, True])
def test_a_kept_step_serves_the_next_prompts_and_only_prompts_of_its_shape(model, padded, monkeypatch):
    monkeypatch.setattr(static_module, "pays_padding", lambda head: padded)
    model = copy.deepcopy(model).double()
    options = {"beams": 3, "max_new_tokens": 8, "end_id": None}
    assert_same(model, *random_prompts(model.config.vocab_size, [30, 21], seed=0), **options)
    step = static_module._KEPT[model]
    assert_same(model, *random_prompts(model.config.vocab_size, [4, 9], seed=1), **options)  # over what longer ones left behind
    assert static_module._KEPT[model] is step
    assert_same(model, *random_prompts(model.config.vocab_size, [4, 9, 5], seed=2), **options)
    other = static_module._KEPT[model]
    assert other is not step
    model.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})  # trained on, where they were
    assert_same(model, *random_prompts(model.config.vocab_size, [4, 9, 5], seed=2), **options)
    assert static_module._KEPT[model] is other
    copied = copy.deepcopy(model)
    model.load_state_dict(copied.state_dict(), assign=True)  # other memory: a graph would read the old
    assert_same(model, *random_prompts(model.config.vocab_size, [4, 9, 5], seed=2), **options)
    assert static_module._KEPT[model] is not other


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
def test_a_padded_heads_outputs_are_the_heads_and_zeros(bias):
    head = torch.nn.Linear(16, 70, bias=bias)
    padded = padded_head(head)
    refill(padded, head)
    hidden = torch.randn(3, 16)
    found = padded(hidden)
    assert found.shape == (3, 128)
    torch.testing.assert_close(found[:, :70], head(hidden))
    assert not found[:, 70:].any()


def test_the_result_is_not_written_over_by_the_next_search(llama):
    ids_BP, mask_BP = random_prompts(llama.config.vocab_size, [6, 3], seed=0)
    options = {"beams": 2, "max_new_tokens": 6, "end_id": None}
    with torch.inference_mode():
        first = static_search(llama, ids_BP, mask_BP, **options)
        kept = first.final_ids_BMT.clone()
        static_search(llama, *random_prompts(llama.config.vocab_size, [6, 3], seed=5), **options)
    assert torch.equal(first.final_ids_BMT, kept)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox", "tiny-llama"])
@pytest.mark.parametrize("search", ["shrinking", "static"])
def test_in_half_precision_a_beams_score_is_near_that_of_its_tokens_in_single(name, search):
    half, single = load_model(name, "text", dtype=torch.bfloat16), load_model(name, "text")
    ids_BP, mask_BP = random_prompts(half.config.vocab_size, [9, 14, 3], seed=0)
    options = {"beams": 4, "max_new_tokens": 10, "end_id": None}
    if search == "static":
        found = static_search(half, ids_BP, mask_BP, **options)
        targets, means = found.final_ids_BMT.tolist(), found.final_score_BM
    else:
        found = shrinking_search(half, ids_BP, mask_BP, **options)
        targets, means = found.ids_BMT.tolist(), found.mean_logprob_BM
    prompts = [row[mask.bool()].tolist() for row, mask in zip(ids_BP, mask_BP, strict=True)]
    expected = torch.tensor(continuation_logprobs(single, prompts, targets, padding=0)).mean(dim=2)
    torch.testing.assert_close(means, expected, rtol=0.02, atol=0.02)
    assert means.dtype == torch.float32
    assert (means != means.bfloat16().float()).any(), "the scores are rounded to bf16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@torch.inference_mode()
@pytest.mark.parametrize("beams", [1, 4])
def test_a_graph_finds_what_steps_one_by_one_find(model, beams):
    model = copy.deepcopy(model).double().cuda()
    assert can_capture(model)
    options = {"beams": beams, "max_new_tokens": 16, "end_id": None}
    for seed, lengths in enumerate([[12, 5, 9], [3, 30, 8], [7, 2]]):  # captured, replayed, captured for another shape
        prompts = [part.cuda() for part in random_prompts(model.config.vocab_size, lengths, seed)]
        expected = assert_same(model, *prompts, **options)
        assert torch.equal(beam_search(model, *prompts, **options).ids_BMT, expected.ids_BMT)


def test_a_cpu_captures_nothing(llama):
    assert not can_capture(llama)
