import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raw2s.decoding import word_of_piece
from raw2s.decoding.bridge import words
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.models.load import load_tokenizer
from raw2s.training.batching import collate, plan_epoch, steps_in_epoch, tokenize_row

HIDDEN = 96
MODELS = ["tiny-gpt2", "tiny-opt"]  # without and with a BOS and a pad token
PROMPTS = ["wake me up at nine am\n", "what is the weather in paris next wednesday and thursday\n", "stop\n"]
TARGETS = ['{"time": "nine am"}', '{"place_name": "paris", "date": "wednesday & thursday"}', "{}"]

tokenizer_of = functools.cache(load_tokenizer)
plans = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(1, 30), min_size=1, max_size=60),
        "workers": st.integers(1, 4),
        "micro_batches": st.integers(1, 3),
        "micro_batch_size": st.integers(1, 4),
        "seed": st.none() | st.integers(0, 9),
    }
)


def plan(lengths, workers, micro_batches, micro_batch_size, seed):
    """For every rank the steps of an epoch."""
    batch_size = workers * micro_batches * micro_batch_size
    return [
        list(plan_epoch(lengths, batch_size=batch_size, micro_batches=micro_batches, workers=workers, rank=rank, seed=seed))
        for rank in range(workers)
    ]


@given(plans)
def test_every_row_is_learned_from_once_an_epoch_by_one_rank(settings):
    ranks = plan(**settings)
    shares = [share for steps in ranks for _, lists in steps for share in lists]
    assert sorted(index for share in shares for index in share) == list(range(len(settings["lengths"])))
    assert max(len(share) for share in shares) <= settings["micro_batch_size"]


@given(plans)
def test_all_ranks_take_the_same_steps(settings):
    ranks = plan(**settings)
    batch_size = settings["workers"] * settings["micro_batches"] * settings["micro_batch_size"]
    assert {len(steps) for steps in ranks} == {steps_in_epoch(len(settings["lengths"]), batch_size)}
    for together in zip(*ranks, strict=True):
        chosen = together[0][0]
        assert all(rows == chosen for rows, _ in together)
        assert all(len(lists) == settings["micro_batches"] for _, lists in together)
        assert sorted(index for _, lists in together for share in lists for index in share) == sorted(chosen)
        assert len(chosen) <= batch_size


@given(plans)
def test_the_plan_follows_from_the_seed_and_the_work_is_dealt_out_evenly(settings):
    ranks = plan(**settings)
    assert plan(**settings) == ranks
    lengths = settings["lengths"]
    for together in zip(*ranks, strict=True):
        shares = [share for _, lists in together for share in lists]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        work = [sum(lengths[index] for index in share) for share in shares]
        assert max(work) - min(work) <= max(lengths[index] for index in together[0][0]), "at most a row's difference"


def test_seeds_shuffle_and_none_keeps_the_order():
    settings = {"lengths": [1] * 100, "workers": 1, "micro_batches": 1, "micro_batch_size": 10}
    ordered, one, two = ([rows for rows, _ in plan(**settings, seed=seed)[0]] for seed in (None, 1, 2))
    assert ordered == [list(range(start, start + 10)) for start in range(0, 100, 10)]
    assert ordered != one != two != ordered


def text_row(tokenizer, targets: list[dict], prompt: str = PROMPTS[0], **how):
    return tokenize_row({"id": 0, "prompt": prompt, "targets": targets}, tokenizer, "targets", **how)


def soft_target(text: str, weights: list[float], start: float) -> dict:
    """Word scores that differ between teachers and words."""
    count = len(words(text)) + 1
    return {
        "text": text,
        "weights": weights,
        "word_logprobs": [[-start - i - 0.01 * w for w in range(count)] for i in range(len(weights))],
    }


@pytest.fixture(params=MODELS)
def tokenizer(request):
    return tokenizer_of(request.param)


@pytest.fixture
def soft_rows(tokenizer):
    """Three prompts; one with two targets, one with a target of two teachers."""
    return [
        text_row(tokenizer, [soft_target(TARGETS[0], [0.5], 1.0), soft_target(TARGETS[2], [0.25], 10.0)], PROMPTS[0]),
        text_row(tokenizer, [soft_target(TARGETS[1], [0.5, 0.25], 20.0)], PROMPTS[1]),
        text_row(tokenizer, [soft_target(TARGETS[2], [1.0], 30.0)], PROMPTS[2]),
    ]


def test_a_rows_total_is_its_weighted_target_tokens(tokenizer, soft_rows):
    tokens = [len(encode_target(tokenizer, text)[0]) for text in TARGETS]
    assert [row.total for row in soft_rows] == pytest.approx([0.5 * tokens[0] + 0.25 * tokens[2], 0.75 * tokens[1], tokens[2]])
    assert [row.length for row in soft_rows[1:]] == [
        len(encode_prompt(tokenizer, prompt)) + count - 1 for prompt, count in zip(PROMPTS[1:], tokens[1:], strict=True)
    ]
    batch = collate(soft_rows, tokenizer, HIDDEN)
    assert batch.weight_IN.sum().item() == pytest.approx(sum(row.total for row in soft_rows))


def test_where_sequences_count_alike_a_tokens_weight_is_its_share_of_them(tokenizer, soft_rows):
    rows = [
        text_row(tokenizer, [soft_target(TARGETS[0], [0.5], 1.0), soft_target(TARGETS[2], [0.25], 9.0)], normalize="sequences"),
        text_row(tokenizer, [soft_target(TARGETS[1], [0.5, 0.25], 20.0)], PROMPTS[1], normalize="sequences"),
    ]
    assert [row.total for row in rows] == pytest.approx([0.75, 0.75])
    batch = collate(rows, tokenizer, HIDDEN)
    weight_IS = batch.weight_IN.new_zeros(2, 3).index_add(1, batch.sequence_N, batch.weight_IN)
    torch.testing.assert_close(weight_IS, torch.tensor([[0.5, 0.25, 0.5], [0.0, 0.0, 0.25]]))
    for mine in (batch.sequence_N == s for s in range(3)):
        assert len(batch.weight_IN[:, mine].unique(dim=1).T) == 1, "all tokens of a sequence alike"


def test_words_between_spaces_take_all_their_runs_pieces_and_scores(tokenizer):
    target = soft_target(TARGETS[0], [0.5, 0.25], 1.0)  # {"time": "nine am"}
    (runs,), (spaces,) = (text_row(tokenizer, [target], words=words).sequences for words in ("runs", "spaces"))
    assert spaces.ids == runs.ids and len(runs.word_logprobs[0]) == 8
    assert sorted(set(spaces.words)) == [0, 1, 2, 3], "the end marker's is the last"
    for joined, apart in zip(spaces.word_logprobs, runs.word_logprobs, strict=True):
        assert joined == pytest.approx([sum(apart[:3]), sum(apart[3:5]), sum(apart[5:7]), apart[7]])


def read_before(batch, n: int) -> list[int]:
    """The ids that the token which predicts target token n sees, itself last."""
    width = batch.rows.input_ids_RT.shape[1]
    row, column = divmod(batch.predictor_N[n].item(), width)
    return [batch.rows.input_ids_RT[row, k].item() for k in range(column + 1) if column < batch.rows.end_RT[row, k]]


def test_each_token_is_predicted_from_its_own_text_before_it(tokenizer, soft_rows):
    batch = collate(soft_rows, tokenizer, HIDDEN)
    texts = [(PROMPTS[0], TARGETS[0]), (PROMPTS[0], TARGETS[2]), (PROMPTS[1], TARGETS[1]), (PROMPTS[2], TARGETS[2])]
    for index, (prompt, target) in enumerate(texts):
        mine = (batch.sequence_N == index).nonzero()[:, 0].tolist()
        ids = encode_target(tokenizer, target)[0]
        assert batch.token_N[mine].tolist() == ids
        assert ids[-1] == tokenizer.eos_token_id
        for t, n in enumerate(mine):
            assert read_before(batch, n) == encode_prompt(tokenizer, prompt) + ids[:t]
    assert batch.sequence_N.max() == len(texts) - 1


def test_words_point_at_their_own_sequences_scores(tokenizer, soft_rows):
    batch = collate(soft_rows, tokenizer, HIDDEN)
    sequences = [sequence for row in soft_rows for sequence in row.sequences]
    texts = [TARGETS[0], TARGETS[2], TARGETS[1], TARGETS[2]]
    seen = set()
    for b, (sequence, text) in enumerate(zip(sequences, texts, strict=True)):
        mine = batch.sequence_N == b
        here = set(batch.word_N[mine].tolist())
        assert not here & seen
        seen |= here
        pieces = word_of_piece(text, encode_target(tokenizer, text)[1])
        for i, weight in enumerate(sequence.weights):
            expected = torch.tensor([sequence.word_logprobs[i][word] for word in pieces])
            torch.testing.assert_close(batch.word_logprob_IW[i, batch.word_N[mine]], expected)
            assert set(batch.weight_IN[i, mine].tolist()) == {weight}
        assert not batch.weight_IN[len(sequence.weights) :, mine].any()  # fewer teachers than others: the rest have no weight
    assert batch.weight_IN.shape[0] == batch.word_logprob_IW.shape[0] == 2
    assert seen == set(range(batch.word_logprob_IW.shape[1]))


def test_hard_labels_have_no_word_scores(tokenizer):
    rows = [text_row(tokenizer, [{"text": text, "weights": [0.5]}, {"text": "{}", "weights": [0.5]}]) for text in TARGETS]
    batch = collate(rows, tokenizer, HIDDEN)
    assert batch.word_logprob_IW is None
    assert batch.weight_IN.tolist() == [[0.5] * len(batch.token_N)]


def test_classification_reads_each_prompts_last_token(tokenizer):
    rows = [
        tokenize_row({"id": 0, "prompt": prompt, "probabilities": [0.25, 0.75]}, tokenizer, "probabilities") for prompt in PROMPTS
    ]
    batch = collate(rows, tokenizer, HIDDEN)
    for n, prompt in enumerate(PROMPTS):
        assert read_before(batch, n) == encode_prompt(tokenizer, prompt)
    assert batch.sequence_N.tolist() == list(range(len(PROMPTS)))
    assert batch.probabilities_PK.tolist() == [[0.25, 0.75]] * len(PROMPTS)
    assert [row.total for row in rows] == [1.0] * len(PROMPTS)


def test_preference_alternates_chosen_and_rejected(tokenizer):
    pair = {
        "id": 0,
        "prompt": PROMPTS[0],
        "chosen": TARGETS[0],
        "rejected": TARGETS[2],
        "margin": 0.5,
    }
    rows = [replace(tokenize_row(pair, tokenizer, "pair"), reference=(-3.5, -7.25))] * 2
    batch = collate(rows, tokenizer, HIDDEN)
    sides = [encode_target(tokenizer, TARGETS[side])[0] for side in (0, 2, 0, 2)]
    assert [batch.token_N[batch.sequence_N == b].tolist() for b in range(4)] == sides
    assert batch.reference_P2.tolist() == [[-3.5, -7.25]] * 2
    assert batch.margin_P.tolist() == [0.5, 0.5]
    assert [row.total for row in rows] == [1.0, 1.0]


def test_every_target_token_knows_its_teacher(tokenizer):
    rows = [
        text_row(tokenizer, [{"text": text, "weights": [0.5], "teacher": teacher} for text, teacher in answers])
        for answers in ([(TARGETS[0], 2), (TARGETS[2], 0)], [(TARGETS[1], 1)])
    ]
    batch = collate(rows, tokenizer, HIDDEN)
    assert batch.teacher_N.tolist() == torch.tensor([2, 0, 1])[batch.sequence_N].tolist()
    assert collate([text_row(tokenizer, [{"text": "{}", "weights": [1.0]}])], tokenizer, HIDDEN).teacher_N is None


def test_a_teacher_without_a_label_has_probabilities_of_0(tokenizer):
    own = [[[0.5, 0.5], None], [[0.25, 0.75], [1.0, 0.0]]]
    rows = [
        tokenize_row({"id": 0, "prompt": "a\n", "probabilities": [0.5, 0.5], "by_teacher": each}, tokenizer, "probabilities")
        for each in own
    ]
    expected = [[[0.5, 0.5], [0.0, 0.0]], own[1]]
    assert collate(rows, tokenizer, HIDDEN).by_teacher_PIK.tolist() == expected


def test_an_empty_target_is_its_end_marker(tokenizer):
    row = text_row(tokenizer, [soft_target("", [1.0], 1.0)])
    batch = collate([row], tokenizer, HIDDEN)
    assert batch.token_N.tolist() == [tokenizer.eos_token_id]
    assert batch.predictor_N.tolist() == [len(encode_prompt(tokenizer, PROMPTS[0])) - 1]
    assert batch.word_N.tolist() == [0]


def test_a_batch_moves_whole(tokenizer, soft_rows):
    moved = collate(soft_rows, tokenizer, HIDDEN).to(torch.device("meta"))
    tensors = [*vars(moved).values(), *vars(moved.rows).values()]
    assert {value.device.type for value in tensors if isinstance(value, torch.Tensor)} == {"meta"}
