"""The optional backend against our own beams, on the built-in models and random ones."""

import copy
import re

import pytest
import torch

from raw2s.decoding import beams as beams_module
from raw2s.decoding.beams import generate_beams
from raw2s.models.load import load_model, load_model_config, load_tokenizer
from raw2s.models.source import model_source
from raw2s.pipeline.preflight import CTRANSLATE2_MODELS
from raw2s.tasks import task_of
from raw2s.tasks.slurp_slots import SlotsSection

pytest.importorskip("ctranslate2", reason='pip install "raw2s[ctranslate2]"')
from raw2s.decoding import ctranslate2_beams

PROMPTS = [example["prompt"] for example in task_of(SlotsSection(n_test=40)).held_out("test")]


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-opt", "tiny-gpt-neox", "tiny-llama"])
def both(request, tmp_path_factory):
    """Two functions from prompts to candidates, ours and CTranslate2's, and the tokenizer that they read at every call."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    ctranslate2_beams.convert(model_source(request.param), folder)
    generator = ctranslate2_beams.load_converted(folder, cuda=False)
    model, config, tokenizer = (
        load_model(request.param, "text"),
        load_model_config(request.param),
        load_tokenizer(request.param),
    )

    def ours(prompts, tokenizer=tokenizer, **options):
        return generate_beams(model, tokenizer, prompts, **options)

    def theirs(prompts, tokenizer=tokenizer, **options):
        return ctranslate2_beams.generate_beams(generator, config, tokenizer, prompts, **options)

    return ours, theirs, tokenizer


def ending_with(tokenizer, token_id):
    """The tokenizer with another end marker."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token_id)
    return tokenizer


@pytest.fixture
def spelled_ids(monkeypatch):
    """Candidates whose text is their ids."""
    for module in (beams_module, ctranslate2_beams):
        monkeypatch.setattr(module, "decode_target", lambda tokenizer, ids: " ".join(map(str, ids)))


def assert_same(found, expected):
    for candidates, others in zip(found, expected, strict=True):
        assert [c.text for c in candidates] == [c.text for c in others]
        assert [(c.tokens, c.ended) for c in candidates] == [(c.tokens, c.ended) for c in others]
        assert [c.token_logprob_sum for c in candidates] == pytest.approx([c.token_logprob_sum for c in others], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
def test_the_same_candidates_where_the_length_ends_them(both, beams, spelled_ids):
    ours, theirs, tokenizer = both
    never = ending_with(tokenizer, len(tokenizer) - 1)
    expected = ours(PROMPTS, never, beams=beams, max_new_tokens=6)
    assert not any(c.ended for candidates in expected for c in candidates)
    assert_same(theirs(PROMPTS, never, beams=beams, max_new_tokens=6), expected)


def often_chosen(ours, tokenizer):
    """The id that greedy decoding chooses most often as its fourth."""
    never = ending_with(tokenizer, len(tokenizer) - 1)
    fourth = [int(c.text.split()[3]) for [c] in ours(PROMPTS, never, beams=1, max_new_tokens=4)]
    return max(set(fourth), key=fourth.count)


def test_the_same_greedy_answers(both, spelled_ids):
    ours, theirs, tokenizer = both
    ending = ending_with(tokenizer, often_chosen(ours, tokenizer))
    expected = ours(PROMPTS, ending, beams=1, max_new_tokens=12)
    assert any(c.ended for [c] in expected)
    assert_same(theirs(PROMPTS, ending, beams=1, max_new_tokens=12), expected)


def test_where_candidates_end_the_best_is_nearly_always_the_same_and_every_score_is(both, spelled_ids):
    ours, theirs, tokenizer = both
    ending = ending_with(tokenizer, often_chosen(ours, tokenizer))
    expected, found = (each(PROMPTS, ending, beams=4, max_new_tokens=12) for each in (ours, theirs))
    for candidates, others in zip(found, expected, strict=True):
        assert 1 <= len(candidates) <= 4
        mean = {c.text: c.mean_logprob for c in others}
        shared = [c for c in candidates if c.text in mean]
        assert [c.mean_logprob for c in shared] == pytest.approx([mean[c.text] for c in shared], abs=1e-4)
        means = [c.mean_logprob for c in candidates]
        assert means == sorted(means, reverse=True)
        ids = [[int(token) for token in c.text.split()] for c in candidates]
        assert [c.ended for c in candidates] == [each[-1] == ending.eos_token_id for each in ids]
        assert all(
            ending.eos_token_id not in each[:-1] and (len(each) == 12 or c.ended) for each, c in zip(ids, candidates, strict=True)
        )
    assert any(c.ended for candidates in found for c in candidates)
    assert sum(c[0].text == o[0].text for c, o in zip(found, expected, strict=True)) >= 0.9 * len(PROMPTS)


def test_a_prompt_with_no_room_to_generate_is_named(both):
    with pytest.raises(ValueError, match=re.escape(repr(PROMPTS[0][:60])) + r".*256 positions"):
        both[1](PROMPTS[:1], beams=2, max_new_tokens=256)


def test_a_tokenizer_with_an_end_marker_only_will_do(model, tokenizer, tmp_path):
    if model.config.model_type not in CTRANSLATE2_MODELS:
        pytest.skip("our own search only")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ctranslate2_beams.convert(str(tmp_path), tmp_path / "converted")
    generator = ctranslate2_beams.load_converted(tmp_path / "converted", cuda=False)
    options = {"beams": 3, "max_new_tokens": 3}
    found = ctranslate2_beams.generate_beams(generator, model.config, tokenizer, ["wake me up:", "play jazz:"], **options)
    assert found[0][0].text == generate_beams(model, tokenizer, ["wake me up:"], **options)[0][0].text
    assert len(found) == 2


def test_a_conversion_that_scores_otherwise_is_refused(tmp_path, monkeypatch):
    load = ctranslate2_beams._Converter.load_model

    def bent(self, *arguments, **options):
        model = load(self, *arguments, **options)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.1)
        return model

    monkeypatch.setattr(ctranslate2_beams._Converter, "load_model", bent)
    with pytest.raises(ValueError, match=r"tiny-gpt2: converted to CTranslate2 it scores tokens up to .* nats otherwise"):
        ctranslate2_beams.convert(model_source("tiny-gpt2"), tmp_path / "model")
