import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, MistralConfig, Qwen2Config

from raw2s.decoding.packing import attention_mask, pack_rows, row_layout, token_tree

texts = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(list)  # of three ids, so that prefixes are shared
trees = st.tuples(texts, st.lists(texts, max_size=5))


def seen_by(tree, node):
    """The ids of the nodes that `node` sees, itself last."""
    return [tree.ids[k] for k in range(node + 1) if node < tree.ends[k]]


@given(trees)
def test_every_predictor_sees_its_text_alone(given_tree):
    prompt, continuations = given_tree
    tree = token_tree(prompt, continuations)
    for text, predictors in zip(continuations, tree.predictors, strict=True):
        assert len(predictors) == len(text)
        for t, node in enumerate(predictors):
            assert seen_by(tree, node) == prompt + text[:t]
            assert tree.positions[node] == len(prompt) + t - 1


@given(trees)
def test_what_is_shared_is_there_once(given_tree):
    prompt, continuations = given_tree
    tree = token_tree(prompt, continuations)
    prefixes = {tuple(text[:t]) for text in continuations for t in range(1, len(text))}
    assert len(tree.ids) == len(prompt) + len(prefixes)
    assert sorted(tuple(seen_by(tree, node))[len(prompt) :] for node in range(len(prompt), len(tree.ids))) == sorted(prefixes)


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=40)


@given(lengths, st.sampled_from([1, 96, 4096]))
def test_each_length_is_laid_out_once(lengths, hidden_size):
    rows = row_layout(lengths, hidden_size)
    assert all(rows)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))


def test_rows_of_a_wide_model_have_no_padding_and_of_a_narrow_one_are_short():
    lengths = [3 + i * 7 % 30 for i in range(200)]

    def size(hidden_size):
        rows = row_layout(lengths, hidden_size)
        width = max(sum(lengths[i] for i in row) for row in rows)
        return width, len(rows) * width / sum(lengths)

    assert size(10**6)[1] == 1
    assert size(1)[0] < 1.1 * max(lengths)
    width, filled = size(256)
    assert width < 256
    assert filled < 1.02


@given(st.lists(trees, min_size=1, max_size=6))
def test_packed_trees_keep_their_ids_and_see_no_other_tree(given_trees):
    planted = [token_tree(prompt, continuations) for prompt, continuations in given_trees]
    rows, starts = pack_rows(planted, padding=9, hidden_size=4)
    mask_RTT = attention_mask(rows, GPT2Config(), torch.float32)[:, 0]
    ids, width = rows.input_ids_RT.flatten(), rows.input_ids_RT.shape[1]
    trees_tokens = set()
    for i, tree in enumerate(planted):
        row, first = divmod(starts[i], width)
        here = slice(starts[i], starts[i] + len(tree.ids))
        trees_tokens |= set(range(here.start, here.stop))
        assert ids[here].tolist() == tree.ids
        assert rows.position_ids_RT.flatten()[here].tolist() == tree.positions
        for node in range(len(tree.ids)):
            sees = [first + k for k in range(node + 1) if node < tree.ends[k]]
            assert mask_RTT[row, first + node].isfinite().nonzero()[:, 0].tolist() == sees
    for index in set(range(len(ids))) - trees_tokens:
        assert ids[index] == 9
        assert mask_RTT[index // width, index % width].isfinite().nonzero()[:, 0].tolist() == [index % width]


@pytest.mark.parametrize(
    "config, slides",
    [
        (MistralConfig(sliding_window=3), True),
        (MistralConfig(sliding_window=None), False),
        (MistralConfig(sliding_window=99), False),
        (Qwen2Config(use_sliding_window=False, sliding_window=3), False),
        (Qwen2Config(use_sliding_window=True, sliding_window=3, max_window_layers=1, num_hidden_layers=2), True),
    ],
)
def test_a_sliding_window_counts_positions_and_not_columns(config, slides):
    tree = token_tree([5, 6, 7], [[1, 1, 1, 1, 0], [2, 2, 2, 2, 0]])
    rows, _ = pack_rows([tree], padding=0, hidden_size=4)
    mask = attention_mask(rows, config, torch.float32)
    if isinstance(mask, dict):
        assert mask["full_attention"][0, 0, 10].isfinite().nonzero()[:, 0].tolist() == [0, 1, 2, 7, 8, 9, 10]
        mask = mask["sliding_attention"]
    assert mask[0, 0, 7].isfinite().nonzero()[:, 0].tolist() == ([1, 2, 7] if slides else [0, 1, 2, 7])
