import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raw2s.labels.table import CLASSIFICATION, GENERATION, read_table, write_table
from raw2s.labels.targets import (
    Labeled,
    best_candidate,
    candidate_score,
    class_rows,
    joint_rows,
    preference_pairs,
    text_rows,
)

PROMPTS = {7: "wake me up\n", 3: "play jazz\n"}


def candidate(
    index: int, text: str, rank: list[int], words: list[list[float]], tokens: list[int] | None = None, prompt: int = 7
) -> dict:
    return {
        "id": prompt,
        "candidate": index,
        "text": text,
        "rank": rank,
        "tokens": tokens or [len(w) for w in words],
        "words": words,
    }


# Prompt 7: each teacher has another best beam. Prompt 3: they agree on the best.
TABLE = [
    candidate(0, "nine am", [0, 1], [[-0.1, -0.1, -0.2], [-1.0, -1.0, -1.0]]),
    candidate(1, "nine", [1, -1], [[-2.0, -0.5], [-4.0, -1.0]]),
    candidate(2, "at nine am", [-1, 0], [[-0.5, -0.5, -0.1, -0.1], [-0.1, -0.1, -0.2, -0.4]]),
    candidate(0, "jazz", [0, 0], [[-0.3, -0.1], [-0.6, -0.2]], prompt=3),
    candidate(1, "blues", [1, 1], [[-3.0, -0.1], [-6.0, -0.2]], prompt=3),
]


def labeled(table=TABLE, **changes):
    return Labeled(**({"prompts": PROMPTS, "table": table, "weights": [0.75, 0.25]} | changes))


def rows_of(table=TABLE, confidence=True, **changes):
    return text_rows(labeled(table, **changes), confidence=confidence)


def joint_of(table=TABLE, confidence=True, **changes):
    return joint_rows(labeled(table, **changes), score="mean_logprob", confidence=confidence)


def classes_of(table, confidence=True, **changes):
    return class_rows(labeled(table, **changes), confidence=confidence)


@pytest.mark.parametrize(
    ("score", "first", "second"),
    [
        ("mean_logprob", math.log(0.5), math.log(0.25)),
        ("sum_logprob", 3 * math.log(0.5), 2 * math.log(0.25)),
        ("prob", 0.5**3, 0.25**2),
    ],
)
def test_the_three_kinds_of_score(score, first, second):
    # Two words and the end marker; the second teacher's tokenizer needs two pieces for them.
    words = [[math.log(0.5)] * 3, [2 * math.log(0.25), 0.0, 0.0]]
    assert candidate_score(words, [3, 2], [0.7, 0.3], score) == pytest.approx(0.7 * first + 0.3 * second)


logprobs = st.lists(st.sampled_from([-4.0, -1.5, -0.5]), min_size=2, max_size=2)  # few values, so that many scores tie
beams = st.lists(st.lists(logprobs, min_size=2, max_size=2), min_size=1, max_size=6)
shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=2)
scores = st.sampled_from(["mean_logprob", "sum_logprob", "prob"])


@given(beams, shares, scores)
def test_joint_decoding_takes_the_largest_score_and_of_equals_the_first(words, weights, score):
    candidates = [candidate(index, str(index), [index, index], each) for index, each in enumerate(words)]
    values = [candidate_score(c["words"], c["tokens"], weights, score) for c in candidates]
    best = best_candidate(candidates[::-1], weights, score)
    assert values[best["candidate"]] == max(values)
    assert values.index(max(values)) == best["candidate"]


@pytest.mark.parametrize(
    ("weights", "text", "producer"),
    [
        ([0.5, 0.5], "at nine am", 1),
        ([1.0, 0.0], "nine am", 0),
        ([0.9, 0.1], "nine am", 0),  # the second teacher has it too, only lower
    ],
)
def test_joint_trains_on_one_sequence_with_its_producers_confidence(weights, text, producer):
    (target,) = joint_of(weights=weights)[0]["targets"]
    chosen = next(c for c in TABLE if c["text"] == text)
    assert target == {"text": text, "weights": [1.0], "word_logprobs": [chosen["words"][producer]]}


@pytest.mark.parametrize(("rank", "producer"), [([1, 0], 1), ([0, 0], 0), ([2, 1], 1), ([-1, 3], 1), ([3, -1], 0)])
def test_the_producer_is_who_ranked_it_highest_then_the_first(rank, producer):
    words = [[-1.0, -0.1], [-2.0, -0.2]]
    (row,) = joint_of([candidate(0, "nine", rank, words)])
    assert row["targets"][0]["word_logprobs"] == [words[producer]]


def test_multi_gives_each_teachers_own_best():
    apart, together = rows_of()
    assert (apart["id"], apart["prompt"]) == (7, PROMPTS[7])
    assert apart["targets"] == [
        {"text": "nine am", "weights": [0.75], "word_logprobs": [TABLE[0]["words"][0]]},
        {"text": "at nine am", "weights": [0.25], "word_logprobs": [TABLE[2]["words"][1]]},
    ]
    assert together["targets"] == [{"text": "jazz", "weights": [0.75, 0.25], "word_logprobs": TABLE[3]["words"]}]


def test_equal_texts_stay_apart_unless_merged():
    assert rows_of(merge=False)[1]["targets"] == [
        {"text": "jazz", "weights": [0.75], "word_logprobs": [TABLE[3]["words"][0]]},
        {"text": "jazz", "weights": [0.25], "word_logprobs": [TABLE[3]["words"][1]]},
    ]


@pytest.mark.parametrize("merge", [True, False])
def test_a_teacher_of_weight_zero_has_no_say(merge):
    for row, text in zip(rows_of(weights=[0.0, 1.0], merge=merge), ("at nine am", "jazz"), strict=True):
        (target,) = row["targets"]
        assert (target["text"], target["weights"]) == (text, [1.0])
        assert target["word_logprobs"] == [next(c for c in TABLE if c["text"] == text)["words"][1]]


@pytest.mark.parametrize("per_teacher", [False, True])
@pytest.mark.parametrize("merge", [True, False])
def test_a_subset_of_the_teachers_gives_the_rows_of_these_teachers_alone(merge, per_teacher):
    """Whether the others of weight zero stand before or after, agree or have texts of their own."""
    other = [[-5.0] * 4, [-6.0] * 4]
    first = [
        {**c, "rank": [rank, *c["rank"], -1], "words": [other[0], *c["words"], other[1]], "tokens": [9, *c["tokens"], 9]}
        for c, rank in zip(TABLE, [0, -1, 1, 1, 0], strict=True)
    ]
    extra = candidate(9, "polka", [-1, -1, -1, 0], [other[0][:2]] * 4, prompt=3)
    table = [candidate(0, "ten", [-1, -1, -1, 0], [other[0][:2]] * 4), *first, extra]
    among = text_rows(labeled(table, weights=[0, 0.75, 0.25, 0], merge=merge), confidence=True, per_teacher=per_teacher)
    alone = text_rows(labeled(merge=merge), confidence=True, per_teacher=per_teacher)
    for row in among:
        for target in row["targets"]:
            if per_teacher:
                target["teacher"] -= 1  # its place among all four
    assert among == alone


# Prompt 7 again with a third teacher that is a file of labels; it has nothing for prompt 3.
WITH_FILE = [
    {**c, "rank": [*c["rank"], rank], "words": [*c["words"], None], "tokens": [*c["tokens"], None]}
    for c, rank in zip(TABLE, [-1, 0, 1, -1, -1], strict=True)
]


def test_a_file_of_labels_scores_nothing_and_has_no_say_in_joint_decoding():
    for weights in ([0.5, 0.5, 0.0], [0.9, 0.1, 0.0]):
        assert joint_of(WITH_FILE, weights=weights) == joint_of(weights=weights[:2])
    alone = [{**WITH_FILE[1], "rank": [-1, -1, 0]}]
    (row,) = joint_of(alone, weights=[0.5, 0.5, 0.0])
    assert row["targets"] == [{"text": "nine", "weights": [1.0], "word_logprobs": [[0.0, 0.0]]}]  # it is sure of its words


def test_a_file_of_labels_is_sure_of_its_words_and_leaves_its_weight_where_it_has_none():
    first, second = rows_of(WITH_FILE, weights=[0.25, 0.25, 0.5])
    assert first["targets"] == [
        {"text": "nine am", "weights": [0.25], "word_logprobs": [TABLE[0]["words"][0]]},
        {"text": "at nine am", "weights": [0.25], "word_logprobs": [TABLE[2]["words"][1]]},
        {"text": "nine", "weights": [0.5], "word_logprobs": [[0.0, 0.0]]},
    ]
    assert second["targets"] == [{"text": "jazz", "weights": [0.5, 0.5], "word_logprobs": TABLE[3]["words"]}]


def test_a_prompt_without_a_label_of_a_weighted_teacher_gives_no_row():
    assert [row["id"] for row in rows_of(WITH_FILE, weights=[0.0, 0.0, 1.0])] == [7]
    table = [{"id": 7, "logits": [[0.0, 1.0], None]}, {"id": 3, "logits": [[0.0, 1.0], [2.0, 0.0]]}]
    assert [row["id"] for row in classes_of(table, weights=[0, 1], confidence=True)] == [3]


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.sets(st.integers(0, 2), min_size=1), st.booleans())
def test_classes_are_mixed_over_the_teachers_that_have_a_label(weights, present, confidence):
    logits = [[0.0, 1.0, 2.0], [2.0, 0.0, -math.inf], [0.0, 3.0, 0.0]]
    table = [{"id": 3, "logits": [own if i in present else None for i, own in enumerate(logits)]}]
    kept = sorted(present)
    among = [{"id": 3, "logits": [logits[i] for i in kept]}]
    (row,) = classes_of(table, weights=weights, confidence=confidence)
    (expected,) = classes_of(among, weights=[weights[i] for i in kept], confidence=confidence)
    assert row["probabilities"] == pytest.approx(expected["probabilities"])
    assert sum(row["probabilities"]) == pytest.approx(1)


@given(st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_classes_of_a_subset_of_the_teachers_know_nothing_of_the_others(said):
    logits = [[0.0, 1.0, 2.0], [2.0, 0.0, -math.inf]]
    (among,) = classes_of([{"id": 3, "logits": [said, *logits]}], weights=[0.0, 0.75, 0.25])
    assert among == classes_of([{"id": 3, "logits": logits}])[0]


def test_temperatures_divide_the_logits_of_their_teacher():
    table = [{"id": 3, "logits": [[0.0, 4.0], None, [2.0, 0.0]]}]
    (row,) = classes_of(table, weights=[1, 1, 3], confidence=True, temperatures=[2.0, 9.0, 1.0])
    sigmoid = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    assert row["probabilities"][1] == pytest.approx(0.25 * sigmoid[0] + 0.75 * sigmoid[1])


def test_each_teachers_own_text_names_its_teacher():
    first, second = text_rows(labeled(WITH_FILE, weights=[0.25, 0.0, 0.75]), confidence=True, per_teacher=True)
    assert [(t["teacher"], t["text"], t["weights"]) for t in first["targets"]] == [(0, "nine am", [0.25]), (2, "nine", [0.75])]
    assert [(t["teacher"], t["text"], t["weights"]) for t in second["targets"]] == [(0, "jazz", [1.0])]
    agreed = text_rows(labeled(), confidence=True, per_teacher=True)[1]  # the same text, and yet a target each
    assert [(t["teacher"], t["text"], t["weights"]) for t in agreed["targets"]] == [(0, "jazz", [0.75]), (1, "jazz", [0.25])]


def test_each_teachers_own_classes_stand_beside_their_mixture():
    table = [{"id": 3, "logits": [[0.0, 1.0], None, [3.0, 1.0]]}]
    weights = [1, 1, 3]
    (row,) = class_rows(labeled(table, weights=weights), confidence=True, per_teacher=True)
    first, nothing, third = row.pop("by_teacher")
    assert nothing is None and first == torch.tensor([0.0, 1.0], dtype=torch.float64).softmax(0).tolist()
    assert row["probabilities"] == pytest.approx([0.25 * a + 0.75 * b for a, b in zip(first, third, strict=True)])
    assert [row] == classes_of(table, weights=weights)


@pytest.mark.parametrize("made", [rows_of, joint_of], ids=["multi", "joint"])
def test_hard_labels_carry_no_confidence(made):
    for row in made(confidence=False):
        assert [target.keys() for target in row["targets"]] == [{"text", "weights"}] * len(row["targets"])


@pytest.mark.parametrize("confidence", [True, False])
def test_classes_are_mixed_with_the_weights(confidence):
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]
    table = [{"id": 3, "logits": [[math.log(p) + 5 for p in teacher] for teacher in probabilities]}]
    (row,) = classes_of(table, weights=[3, 1], confidence=confidence)
    expected = [0.55, 0.225, 0.225] if confidence else [0.75, 0, 0.25]
    assert row == {"id": 3, "prompt": PROMPTS[3], "probabilities": pytest.approx(expected)}


def test_a_class_teacher_of_weight_zero_has_no_say():
    table = [{"id": 3, "logits": [[100.0, 0.0], [0.3, 0.4]]}]
    (row,) = classes_of(table, weights=[0, 1], confidence=True)
    assert row["probabilities"] == pytest.approx(torch.tensor([0.3, 0.4], dtype=torch.float64).softmax(0).tolist())


def own_beams(values: list[float]) -> list[dict]:
    """Beams of the student to which both teachers give the same one-word score."""
    return [
        {"text": str(index), "reference": -float(index), "words": [[value], [value]], "tokens": [1, 1]}
        for index, value in enumerate(values)
    ]


@given(beams, shares, scores)
def test_pairs_are_the_best_against_the_worst(words, weights, score):
    candidates = [
        {"text": str(index), "reference": -float(index), "words": each, "tokens": [2, 2]} for index, each in enumerate(words)
    ]
    values = [candidate_score(c["words"], c["tokens"], weights, score) for c in candidates]
    pairs = preference_pairs(PROMPTS, {7: candidates}, weights, score)
    if max(values) == min(values):
        assert pairs == []
        return
    best, worst = values.index(max(values)), values.index(min(values))
    assert pairs == [
        {
            "id": 7, "prompt": PROMPTS[7], "chosen": str(best), "rejected": str(worst),
            "ref_chosen": -float(best), "ref_rejected": -float(worst), "margin": values[best] - values[worst],
        }
    ]  # fmt: skip


def test_no_pair_where_the_best_is_the_worst():
    candidates = {7: own_beams([-2.0, -2.0]), 3: own_beams([-1.0]), 5: own_beams([-2.0, -1.0, -2.0])}
    (pair,) = preference_pairs(PROMPTS | {5: "stop\n"}, candidates, [0.5, 0.5], "mean_logprob")
    assert (pair["id"], pair["chosen"], pair["rejected"]) == (5, "1", "0")


def test_tables_are_read_as_they_were_written(tmp_path):
    texts = ["", 'zoë "r. & b."', "a\u2028b\x85", "{}", "\n"]
    table = [{**row, "text": text} for row, text in zip(TABLE, texts, strict=True)]
    write_table(tmp_path / "labels.parquet", table, GENERATION, ["gpt-2", "zoë"])
    assert read_table(tmp_path / "labels.parquet") == (table, ["gpt-2", "zoë"])


def test_class_tables_are_read_as_they_were_written(tmp_path):
    logits = torch.tensor([[0.1, -2.3, 1e-30], [5.0, 0.0, -1e30]]).tolist()
    write_table(tmp_path / "labels.parquet", [{"id": -4, "logits": logits}], CLASSIFICATION, ["a", "b"])
    assert read_table(tmp_path / "labels.parquet") == ([{"id": -4, "logits": logits}], ["a", "b"])
