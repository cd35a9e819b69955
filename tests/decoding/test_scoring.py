import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    MambaConfig,
    PreTrainedTokenizer,
    PreTrainedTokenizerFast,
)

from raw2s.decoding import scoring
from raw2s.decoding.scoring import class_logits, continuation_logprobs, target_logprobs
from raw2s.decoding.tokens import decode_target, encode_prompt, encode_target, pad_id
from raw2s.models.load import load_model, load_tokenizer

SHARED = Path(os.environ.get("RAW2S_SHARED", Path(__file__).parents[3] / "shared"))
TARGETS = {
    "play jazz in the kitchen:": ["[genre : jazz] [place : kitchen]", "[genre : jazz]", "[artist : jazz] [place : kitchen]"],
    "wake me up:": ["", "[time : nine am] [date : friday]", "[time : nine am] [date : monday]", "", "[time : nine pm]"],
    "stop:": [],
    "what is the weather in paris tomorrow at nine am:": ["[place : paris]"],
}
PROMPTS = [*TARGETS, "é", "the end<|endoftext|>"]


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
    """One full forward of one prompt and one target through the model itself."""
    prompt_ids, target_ids = encode_prompt(tokenizer, prompt), encode_target(tokenizer, target)[0]
    logprob_TV = model(torch.tensor([prompt_ids + target_ids])).logits[0].log_softmax(-1)
    return [logprob_TV[len(prompt_ids) - 1 + step, token].item() for step, token in enumerate(target_ids)]


def scores_of(model, tokenizer, targets=TARGETS, **options):
    """Per prompt and target the tokens' log-probabilities."""
    scored = target_logprobs(model, tokenizer, list(targets), list(targets.values()), **options)
    return {prompt: [score.logprobs for score in scores] for prompt, scores in zip(targets, scored, strict=True)}


def assert_scored_as_naively(scores, model, tokenizer, targets=TARGETS):
    for prompt, texts in targets.items():
        assert len(scores[prompt]) == len(texts)
        for text, score in zip(texts, scores[prompt], strict=True):
            naive = naive_logprobs(model, tokenizer, prompt, text)
            assert score == pytest.approx(naive, abs=1e-4)
            assert sum(score) == pytest.approx(sum(naive), abs=1e-4)


@pytest.mark.parametrize("max_tokens_per_batch", [1, 100, 8192], ids=["one prompt at a time", "some", "all at once"])
def test_scores_equal_the_full_forward_one_by_one(any_model, tokenizer, bos_tokenizer, max_tokens_per_batch):
    for each in (tokenizer, bos_tokenizer):
        assert_scored_as_naively(scores_of(any_model, each, max_tokens_per_batch=max_tokens_per_batch), any_model, each)


def test_eager_attention_takes_the_same_mask(model, tokenizer):
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    assert_scored_as_naively(scores_of(eager, tokenizer), model, tokenizer)


def test_a_trained_model_scores_as_one_by_one():
    folder = SHARED / "data" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here")
    model, tokenizer = load_model(str(folder), "text"), load_tokenizer(str(folder))
    stories = {
        "Once upon a time, there was": [" a little girl named Lily.", " a little boy. He liked to play.", " a big dog."],
        "The sun": [" was shining.", ""],
    }
    scores = scores_of(model, tokenizer, stories)
    assert_scored_as_naively(scores, model, tokenizer, stories)
    assert np.mean(scores["The sun"][0][:-1]) > -4, "a model that knows the text"


@given(order=st.permutations(list(TARGETS)), budget=st.integers(1, 200), sharing=st.integers(1, 60), columns=st.integers(7, 400))
@settings(deadline=None, max_examples=10)
def test_order_budget_who_shares_a_prompt_and_the_heads_blocks_change_nothing(model, tokenizer, order, budget, sharing, columns):
    scores = scores_of(model, tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "SHARING_TOKENS", sharing)
        patch.setattr(scoring, "HEAD_ELEMENTS", 1)
        patch.setattr(scoring, "MIN_HEAD_COLUMNS", columns)
        moved = scores_of(model, tokenizer, {prompt: TARGETS[prompt][::-1] for prompt in order}, max_tokens_per_batch=budget)
    for prompt, reversed_scores in moved.items():
        for score, other in zip(reversed_scores[::-1], scores[prompt], strict=True):
            assert score == pytest.approx(other, abs=1e-4)


@given(data=st.data())
@settings(deadline=None, max_examples=5)
def test_any_ids_score_as_one_by_one(any_model, data):
    texts = st.lists(st.integers(0, 3), min_size=1, max_size=12)  # of four ids, so that prefixes are shared
    prompts = data.draw(st.lists(texts, max_size=3))
    continuations = [data.draw(st.lists(texts, max_size=4)) for _ in prompts]
    scores = continuation_logprobs(any_model, prompts, continuations, padding=0, max_tokens_per_batch=60)
    for prompt, given_texts, given_scores in zip(prompts, continuations, scores, strict=True):
        for text, score in zip(given_texts, given_scores, strict=True):
            with torch.no_grad():
                logprob_TV = any_model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert score == pytest.approx(logprob_TV[range(len(text)), text].tolist(), abs=1e-4)


def test_offsets_come_with_the_scores(llama, tokenizer):
    scored = target_logprobs(llama, tokenizer, list(TARGETS), list(TARGETS.values()))
    for texts, scores in zip(TARGETS.values(), scored, strict=True):
        assert [score.offsets for score in scores] == [encode_target(tokenizer, text)[1] for text in texts]


def forward_shapes(model, monkeypatch):
    """The (R, T) of every forward from here on."""
    shapes = []
    decoder = model.get_decoder()

    class Spy:
        def __call__(self, input_ids, **kwargs):
            shapes.append(tuple(input_ids.shape))
            return decoder(input_ids=input_ids, **kwargs)

        def forward(self, position_ids):
            raise AssertionError("only its signature is read")

    monkeypatch.setattr(type(model), "get_decoder", lambda self: Spy())
    return shapes


def test_a_prompt_and_a_shared_prefix_are_forwarded_once(llama, tokenizer, monkeypatch):
    shapes = forward_shapes(llama, monkeypatch)
    one = ("wake me up:", "[time : nine am] [date : friday]")
    prompt, target = encode_prompt(tokenizer, one[0]), encode_target(tokenizer, one[1])[0]
    target_logprobs(llama, tokenizer, [one[0]], [[one[1]] * 5])
    assert shapes == [(1, len(prompt) + len(target) - 1)], "the last token is never read"


def test_batches_keep_to_the_token_budget(model, tokenizer, monkeypatch):
    shapes = forward_shapes(model, monkeypatch)
    prompts = ["what is the weather in paris tomorrow:"] + ["wake me up:"] * 6
    target_logprobs(model, tokenizer, prompts, [["[place : paris]"]] + [["[time : nine am]"]] * 6, max_tokens_per_batch=60)
    assert all(rows * columns <= 1.1 * 60 for rows, columns in shapes)
    assert 1 < len(shapes) < len(prompts)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200))
def test_the_least_budget_needs_no_more_batches_and_one_token_less_does(lengths, most):
    def batches(tokens):
        return len(list(scoring._runs(lengths, range(len(lengths)), tokens)))

    least = scoring._least_that_needs_no_more(most, batches)
    assert least <= most and batches(least) == batches(most)
    assert least == 0 or batches(least - 1) > batches(most)


def test_a_half_precision_model_is_normalized_in_fp32(llama, tokenizer):
    half, full = (
        torch.tensor([value for scores in scores_of(each, tokenizer).values() for score in scores for value in score])
        for each in (copy.deepcopy(llama).bfloat16(), llama)
    )
    assert not torch.equal(half, half.bfloat16().float()), "more digits than bfloat16 holds"
    assert half.mean().item() == pytest.approx(full.mean().item(), rel=0.05)


def test_a_pair_too_long_for_the_model_is_named(model, tokenizer):
    with pytest.raises(ValueError, match=r"play jazz.*64 positions"):
        target_logprobs(model, tokenizer, ["wake me up:", "play jazz"], [[""], ["", "nine am " * 40]])


def test_no_prompts_no_scores(model, tokenizer):
    assert target_logprobs(model, tokenizer, [], []) == []


@pytest.mark.parametrize(
    "config, message",
    [
        (Gemma2Config(vocab_size=320, hidden_size=16, num_hidden_layers=1, intermediate_size=16), "final_logit_softcapping"),
        (MambaConfig(vocab_size=320, hidden_size=16, num_hidden_layers=1), "mamba is recurrent: its state runs along the row"),
    ],
    ids=["bends its logits", "recurrent"],
)
def test_unfit_models_are_refused(tokenizer, config, message):
    with pytest.raises(ValueError, match=message):
        scores_of(AutoModelForCausalLM.from_config(config), tokenizer)


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
