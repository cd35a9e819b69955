import copy
import warnings

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from raw2s.decoding import beams as beams_module
from raw2s.decoding.beams import generate_beams
from raw2s.decoding.packing import packable
from raw2s.decoding.tokens import decode_target, encode_prompt, pad_id
from raw2s.models.load import load_model, load_tokenizer
from raw2s.tasks import task_of
from raw2s.tasks.slurp_slots import SlotsSection

PROMPTS = ["play jazz in the kitchen:", "é", "what is the weather in paris tomorrow at nine am:", "wake me up:"]


@pytest.fixture
def spelled_ids(monkeypatch):
    """Candidates whose text is their ids, so that a test can score exactly what was generated."""
    monkeypatch.setattr(beams_module, "decode_target", lambda tokenizer, ids: " ".join(map(str, ids)))


@torch.no_grad()
def logprob_sum(model, prompt_ids, ids):
    logprob_TV = model(torch.tensor([prompt_ids + ids])).logits[0].log_softmax(-1)
    return sum(logprob_TV[len(prompt_ids) - 1 + step, token].item() for step, token in enumerate(ids))


@torch.inference_mode()
def hugging_face_beams(model, tokenizer, prompts, beams, max_new_tokens):
    """What `generate` finds, per prompt (ids, sum of log-probabilities), best mean first: the reference."""
    rows = [torch.tensor(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    ids_BP = pad_sequence(rows, batch_first=True, padding_value=pad_id(tokenizer), padding_side="left")
    mask_BP = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    end = tokenizer.eos_token_id
    config = GenerationConfig(
        num_beams=beams, num_return_sequences=beams, max_new_tokens=max_new_tokens, do_sample=False, length_penalty=1.0,
        early_stopping=False, eos_token_id=end, pad_token_id=pad_id(tokenizer), return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    output = model.generate(input_ids=ids_BP, attention_mask=mask_BP, generation_config=config)
    found = []
    for row, sequence in enumerate(output.sequences[:, ids_BP.shape[1] :].tolist()):
        ids = sequence[: sequence.index(end) + 1] if end in sequence else sequence
        if beams == 1:
            logprob = sum(scores[row].log_softmax(-1)[token].item() for scores, token in zip(output.scores, ids, strict=False))
        else:
            logprob = output.sequences_scores[row].item() * len(ids)
        found.append((ids, logprob))
    return [sorted(found[at : at + beams], key=lambda f: -f[1] / len(f[0])) for at in range(0, len(found), beams)]


def assert_as_hugging_face(model, tokenizer, prompts, beams, max_new_tokens):
    """Same hypotheses in the same order. Best in fp64, where no rounding decides between beams."""
    expected = hugging_face_beams(model, tokenizer, prompts, beams, max_new_tokens)
    found = generate_beams(model, tokenizer, prompts, beams=beams, max_new_tokens=max_new_tokens)
    for candidates, hypotheses in zip(found, expected, strict=True):
        assert [candidate.text for candidate in candidates] == [" ".join(map(str, ids)) for ids, _ in hypotheses]
        assert [c.token_logprob_sum for c in candidates] == pytest.approx([sum_ for _, sum_ in hypotheses], rel=1e-6, abs=1e-5)
        assert [c.tokens for c in candidates] == [len(ids) for ids, _ in hypotheses]
        assert [c.ended for c in candidates] == [ids[-1] == tokenizer.eos_token_id for ids, _ in hypotheses]


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_every_family_finds_what_generate_finds(any_model, tokenizer, spelled_ids, beams):
    model = copy.deepcopy(any_model)
    if packable(model):  # BLOOM's softmax is in fp32 always, where the mask of padding in fp64 is -inf throughout
        model = model.double()
    often = greedy_ids(model, encode_prompt(tokenizer, PROMPTS[0]), None, 4)[-1]
    ending, _ = ending_at(tokenizer, often)
    assert_as_hugging_face(model, tokenizer, PROMPTS, beams, max_new_tokens=1)
    assert_as_hugging_face(model, ending, PROMPTS, beams, max_new_tokens=2)
    assert_as_hugging_face(model, ending, PROMPTS, beams, max_new_tokens=20)


@pytest.mark.parametrize(("name", "prompts"), [("tiny-gpt2", 20), ("tiny-opt", 20), ("tiny-gpt-neox", 20), ("tiny-llama", 10)])
def test_the_built_in_models_find_what_generate_finds(name, prompts, spelled_ids):
    assert_slurp_as_hugging_face(name, prompts, beams=4, max_new_tokens=16)


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(("name", "tokens"), [("tiny-gpt2", 48), ("tiny-opt", 48), ("tiny-gpt-neox", 48), ("tiny-llama", 24)])
def test_the_built_in_models_find_what_generate_finds_over_200_prompts(name, tokens, beams, spelled_ids):
    assert_slurp_as_hugging_face(name, 200, beams, max_new_tokens=tokens)


def assert_slurp_as_hugging_face(name, prompts, beams, max_new_tokens):
    model, tokenizer = load_model(name, "text").double(), load_tokenizer(name)
    texts = [example["prompt"] for example in task_of(SlotsSection(n_test=prompts)).held_out("test")]
    assert_as_hugging_face(model, tokenizer, texts, beams, max_new_tokens)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_padded_batch_gives_what_each_prompt_gives_alone(any_model, tokenizer, bos_tokenizer, spelled_ids, beams):
    for each in (tokenizer, bos_tokenizer):
        together = generate_beams(any_model, each, PROMPTS, beams=beams, max_new_tokens=8)
        for prompt, candidates in zip(PROMPTS, together, strict=True):
            [alone] = generate_beams(any_model, each, [prompt], beams=beams, max_new_tokens=8)
            assert len(candidates) == beams
            assert [candidate.text for candidate in candidates] == [candidate.text for candidate in alone]
            assert [c.token_logprob_sum for c in candidates] == pytest.approx([c.token_logprob_sum for c in alone], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
def test_the_sum_is_the_teacher_forced_log_probability(any_model, bos_tokenizer, spelled_ids, beams):
    end = bos_tokenizer.eos_token_id
    batch = generate_beams(any_model, bos_tokenizer, PROMPTS, beams=beams, max_new_tokens=8)
    for prompt, candidates in zip(PROMPTS, batch, strict=True):
        for candidate in candidates:
            ids = [int(token) for token in candidate.text.split()]
            expected = logprob_sum(any_model, encode_prompt(bos_tokenizer, prompt), ids)
            assert candidate.token_logprob_sum == pytest.approx(expected, abs=1e-4)
            assert candidate.tokens == len(ids)
            assert end not in ids[:-1]
            assert candidate.ended == (ids[-1] == end)
            assert candidate.ended or candidate.tokens == 8


@torch.no_grad()
def greedy_ids(model, prompt_ids, end, max_new_tokens):
    ids: list[int] = []
    while len(ids) < max_new_tokens and end not in ids:
        ids.append(model(torch.tensor([prompt_ids + ids])).logits[0, -1].argmax().item())
    return ids


def ending_at(tokenizer, token_id):
    """The tokenizer with another end marker, one that the random model is known to choose; and its id."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token_id)
    return tokenizer, token_id


def test_one_beam_is_greedy_up_to_the_end_marker(model, tokenizer, spelled_ids):
    prompts_ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    stopping, end = ending_at(tokenizer, greedy_ids(model, prompts_ids[0], None, 4)[-1])
    batch = generate_beams(model, stopping, PROMPTS, beams=1, max_new_tokens=8)
    assert batch[0][0].ended
    for prompt_ids, [candidate] in zip(prompts_ids, batch, strict=True):
        ids = greedy_ids(model, prompt_ids, end, 8)
        assert candidate.text == " ".join(map(str, ids))
        assert candidate.ended == (ids[-1] == end)
        assert candidate.token_logprob_sum == pytest.approx(logprob_sum(model, prompt_ids, ids), abs=1e-4)


def test_beams_as_wide_as_the_vocabulary_find_every_best_target_of_two_tokens(llama, tokenizer):
    prompt_ids = encode_prompt(tokenizer, "wake me up:")
    tokenizer, end = ending_at(tokenizer, greedy_ids(llama, prompt_ids, None, 1)[0])
    [candidates] = generate_beams(llama, tokenizer, ["wake me up:"], beams=len(tokenizer), max_new_tokens=2)
    with torch.no_grad():
        every_pair = torch.tensor([[*prompt_ids, token] for token in range(len(tokenizer))])
        logprob_VTV = llama(every_pair).logits[:, -2:].log_softmax(-1)
    first_V, second_VV = logprob_VTV[0, 0], logprob_VTV[:, 1]
    mean_of = {(end,): first_V[end].item()}
    for first in range(len(tokenizer)):
        if first != end:
            means = ((first_V[first] + second_VV[first]) / 2).tolist()
            mean_of |= {(first, second): mean for second, mean in enumerate(means)}
    best: dict[str, tuple[int, ...]] = {}
    for ids in sorted(mean_of, key=mean_of.get, reverse=True)[: len(tokenizer)]:
        best.setdefault(decode_target(tokenizer, ids), ids)
    expected = [mean_of[ids] for ids in best.values()]
    assert [candidate.mean_logprob for candidate in candidates] == pytest.approx(expected, abs=1e-4)
    assert {candidate.ended for candidate in candidates} == {True, False}
    for candidate in candidates[:100]:  # further down, ties in the last digits decide who is in
        assert candidate.ended == (best[candidate.text][-1] == end)


def test_of_equal_texts_the_best_is_kept(llama, tokenizer, monkeypatch):
    [everything] = generate_beams(llama, tokenizer, ["wake me up:"], beams=16, max_new_tokens=4)
    monkeypatch.setattr(beams_module, "decode_target", lambda tokenizer, ids: str(ids[-1] % 3))
    [merged] = generate_beams(llama, tokenizer, ["wake me up:"], beams=16, max_new_tokens=4)
    assert 1 < len(merged) <= 3 < len(everything)
    assert len({candidate.text for candidate in merged}) == len(merged)
    assert merged[0].mean_logprob == everything[0].mean_logprob
    means = [candidate.mean_logprob for candidate in merged]
    assert means == sorted(means, reverse=True)


def test_the_models_stored_generation_config_has_no_say_and_is_left_alone(llama, tokenizer, monkeypatch):
    plain = generate_beams(llama, tokenizer, PROMPTS, beams=3, max_new_tokens=8)
    stored = GenerationConfig(repetition_penalty=3.0, do_sample=True, top_p=0.5, no_repeat_ngram_size=1, max_length=3)
    monkeypatch.setattr(llama, "generation_config", stored)
    assert generate_beams(llama, tokenizer, PROMPTS, beams=3, max_new_tokens=8) == plain
    assert llama.generation_config is stored
    assert stored.repetition_penalty == 3.0


@pytest.mark.parametrize("beams", [1, 3])
def test_nothing_is_warned_about(llama, tokenizer, capfd, beams):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate_beams(llama, tokenizer, PROMPTS, beams=beams, max_new_tokens=4)
    assert capfd.readouterr() == ("", "")


def test_a_prompt_with_no_room_to_generate_is_named(llama, tokenizer):
    with pytest.raises(ValueError, match=r"play jazz.*64 positions"):
        generate_beams(llama, tokenizer, PROMPTS, beams=2, max_new_tokens=60)


def test_no_prompts_no_beams(llama, tokenizer):
    assert generate_beams(llama, tokenizer, [], beams=2, max_new_tokens=4) == []
