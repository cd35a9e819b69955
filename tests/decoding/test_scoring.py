import copy
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedTokenizer, PreTrainedTokenizerFast

from raw2s.decoding.scoring import class_logits, target_logprobs
from raw2s.decoding.tokens import decode_target, encode_prompt, encode_target, pad_id

PAIRS = [
    ("play jazz in the kitchen:", "[genre : jazz] [place : kitchen]"),
    ("wake me up:", ""),
    ("what is the weather in paris tomorrow at nine am:", "[place : paris]"),
    ("wake me up:", "[time : nine am] [date : friday]"),
]
PROMPTS = [prompt for prompt, _ in PAIRS] + ["é", "the end<|endoftext|>"]


# --- tokens ---


def test_a_prompt_keeps_what_the_tokenizer_prepends_and_drops_what_it_appends(tokenizer, bos_tokenizer):
    ids = encode_prompt(tokenizer, "play jazz")
    assert encode_prompt(bos_tokenizer, "play jazz") == [bos_tokenizer.bos_token_id, *ids]
    assert tokenizer.decode(ids) == "play jazz"
    literal = encode_prompt(bos_tokenizer, "play<|endoftext|>")
    assert literal.count(tokenizer.eos_token_id) == 1, "an end marker written in the text is text"


def test_a_prompt_without_tokens_is_refused(tokenizer, bos_tokenizer):
    for each in (tokenizer, bos_tokenizer):
        with pytest.raises(ValueError, match="no tokens"):
            encode_prompt(each, "")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(str.strip))
@settings(deadline=None)
def test_targets_round_trip_and_offsets_cover_the_text(tokenizer, text):
    ids, offsets = encode_target(tokenizer, text)
    assert len(ids) == len(offsets)
    assert (ids[-1], offsets[-1]) == (tokenizer.eos_token_id, (len(text), len(text)))
    assert decode_target(tokenizer, ids) == text
    covered = {position for start, end in offsets for position in range(start, end)}
    assert covered == set(range(len(text)))


def test_targets_have_no_other_special_token(tokenizer, bos_tokenizer):
    assert encode_target(bos_tokenizer, "[date : friday]") == encode_target(tokenizer, "[date : friday]")


def test_decoding_leaves_spaces_before_punctuation_alone(tokenizer):
    cleaning = copy.deepcopy(tokenizer)  # as some stored tokenizers are set
    cleaning.clean_up_tokenization_spaces = True
    cleaning.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    text = "[time : nine] , it 's ."
    ids, _ = encode_target(cleaning, text)
    assert cleaning.decode(ids, skip_special_tokens=True) != text
    assert decode_target(cleaning, ids) == text


def test_unfit_tokenizers_are_refused_by_name_of_what_is_missing(bpe):
    bare = PreTrainedTokenizerFast(tokenizer_object=bpe)
    with pytest.raises(ValueError, match="eos_token"):
        encode_target(bare, "jazz")
    with pytest.raises(ValueError, match="eos_token"):
        pad_id(bare)

    class Slow(PreTrainedTokenizer):
        vocab_size = 0

        def get_vocab(self):
            return {}

    for encode in (encode_prompt, encode_target):
        with pytest.raises(ValueError, match="fast tokenizer"):
            encode(Slow(eos_token="</s>"), "jazz")


def test_the_pad_id_falls_back_to_the_end_marker(tokenizer, bos_tokenizer):
    assert pad_id(tokenizer) == tokenizer.eos_token_id
    assert pad_id(bos_tokenizer) == bos_tokenizer.pad_token_id != bos_tokenizer.eos_token_id


# --- target_logprobs ---


@torch.no_grad()
def naive_logprobs(model, tokenizer, prompt, target):
    """One full, unpadded forward through the model itself."""
    prompt_ids, target_ids = encode_prompt(tokenizer, prompt), encode_target(tokenizer, target)[0]
    logprob_TV = model(torch.tensor([prompt_ids + target_ids])).logits[0].log_softmax(-1)
    return [logprob_TV[len(prompt_ids) - 1 + step, token].item() for step, token in enumerate(target_ids)]


@pytest.mark.parametrize("max_tokens_per_batch", [1, 100, 8192], ids=["one by one", "some", "all at once"])
def test_scores_equal_the_full_forward(model, tokenizer, bos_tokenizer, max_tokens_per_batch):
    for each in (tokenizer, bos_tokenizer):
        scores = target_logprobs(model, each, PAIRS, max_tokens_per_batch=max_tokens_per_batch)
        for pair, score in zip(PAIRS, scores, strict=True):
            assert score == pytest.approx(naive_logprobs(model, each, *pair), abs=1e-4)


@given(order=st.permutations(range(len(PAIRS))), budget=st.integers(1, 200))
@settings(deadline=None, max_examples=10)
def test_order_and_budget_change_nothing(model, tokenizer, order, budget):
    scores = target_logprobs(model, tokenizer, PAIRS)
    shuffled = target_logprobs(model, tokenizer, [PAIRS[index] for index in order], max_tokens_per_batch=budget)
    for index, score in zip(order, shuffled, strict=True):
        assert score == pytest.approx(scores[index], abs=1e-4)


def test_batches_keep_to_the_token_budget(model, tokenizer, monkeypatch):
    shapes = []
    decoder = model.get_decoder()
    monkeypatch.setattr(type(model), "get_decoder", lambda self: spy)

    def spy(input_ids, **kwargs):
        shapes.append(tuple(input_ids.shape))
        return decoder(input_ids=input_ids, **kwargs)

    pairs = PAIRS[:1] + PAIRS[1:2] * 6  # one long, six short
    target_logprobs(model, tokenizer, pairs, max_tokens_per_batch=60)
    assert sum(rows for rows, _ in shapes) == len(pairs)
    assert all(rows == 1 or rows * columns <= 60 for rows, columns in shapes)
    assert len(shapes) < len(pairs)


def test_a_half_precision_model_is_normalised_in_fp32(llama, tokenizer):
    scores = target_logprobs(copy.deepcopy(llama).bfloat16(), tokenizer, PAIRS)
    half, full = (torch.tensor([*chain(*each)]) for each in (scores, target_logprobs(llama, tokenizer, PAIRS)))
    assert not torch.equal(half, half.bfloat16().float()), "more digits than bfloat16 holds"
    assert half.mean().item() == pytest.approx(full.mean().item(), rel=0.05)


def test_a_pair_too_long_for_the_model_is_named(model, tokenizer):
    with pytest.raises(ValueError, match=r"play jazz.*64 positions"):
        target_logprobs(model, tokenizer, [PAIRS[1], ("play jazz", "nine am " * 40)])


def test_no_pairs_no_scores(model, tokenizer):
    assert target_logprobs(model, tokenizer, []) == []


def test_a_model_that_bends_its_logits_is_refused(tokenizer):
    config = Gemma2Config(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, intermediate_size=16)
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        target_logprobs(AutoModelForCausalLM.from_config(config), tokenizer, PAIRS)


# --- class_logits ---


@pytest.mark.parametrize("max_tokens_per_batch", [1, 8192], ids=["one by one", "all at once"])
def test_class_logits_equal_the_model_on_each_prompt_alone(classifier, tokenizer, bos_tokenizer, max_tokens_per_batch):
    for each in (tokenizer, bos_tokenizer):
        logits = class_logits(classifier, each, PROMPTS, max_tokens_per_batch=max_tokens_per_batch)
        with torch.no_grad():
            alone = [classifier(torch.tensor([encode_prompt(each, prompt)])).logits[0].numpy() for prompt in PROMPTS]
        assert (logits.dtype, logits.shape) == (np.float32, (len(PROMPTS), 3))
        np.testing.assert_allclose(logits, alone, atol=1e-4)


def test_class_logits_equal_the_models_own_padded_batch(classifier, tokenizer, monkeypatch):
    """What a training step sees: the model's own pooling by `config.pad_token_id`, here the end marker."""
    monkeypatch.setattr(classifier.config, "pad_token_id", pad_id(tokenizer))
    prompts = PROMPTS[:-1]  # that pooling cannot tell a last end marker from padding
    rows = [torch.tensor(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id(tokenizer))
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with torch.no_grad():
        expected = classifier(input_ids=ids, attention_mask=mask).logits
    np.testing.assert_allclose(class_logits(classifier, tokenizer, prompts), expected, atol=1e-4)


def test_a_prompt_too_long_for_the_classifier_is_named(classifier, tokenizer):
    with pytest.raises(ValueError, match=r"nine am.*64 positions"):
        class_logits(classifier, tokenizer, ["nine am " * 40])


def test_no_prompts_no_logits(classifier, tokenizer):
    assert class_logits(classifier, tokenizer, []).shape == (0, 3)
