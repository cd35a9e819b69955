"""Models that count positions themselves: why no tree of texts fits a row of theirs, and what a row of one text gives."""

from functools import partial

import pytest
import torch
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BloomConfig, MambaConfig, MptConfig, PreTrainedTokenizerFast
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from raw2s.decoding.block_masks import takes_block_masks, use_block_masks
from raw2s.decoding.heads import hidden_at, layout_for
from raw2s.decoding.packing import attention_mask, pack_rows, packable, padding_mask, separate_texts, token_tree
from raw2s.decoding.tokens import check_context, positions_of

PROMPT, TEXTS = [5, 6, 7], [[8, 9, 10, 11], [12, 13, 14]]
texts = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(list)  # of three ids, so that prefixes are shared


@pytest.fixture
def bloom(tokenizer: PreTrainedTokenizerFast):
    return random_model(AutoModelForCausalLM, "bloom", tokenizer)


@torch.no_grad()
def differences(model, positions_RT):
    """How far BLOOM's hidden states of a tree's two continuations are from those of each text alone.

    The tree's mask is put in and the keys' positions are given, which BLOOM itself offers no way to do.
    """
    tree = token_tree(PROMPT, TEXTS)
    rows, _ = pack_rows([tree], padding=0, hidden_size=32)
    decoder = model.get_decoder()
    mask = attention_mask(rows, model.config, model.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "build_alibi_tensor", partial(alibi_of, positions_RT(rows)))
        hidden_TH = decoder(input_ids=rows.input_ids_RT, attention_mask=mask, use_cache=False).last_hidden_state[0]
    found = []
    for text, predictors in zip(TEXTS, tree.predictors, strict=True):
        alone_TH = decoder(input_ids=torch.tensor([PROMPT + text[:-1]])).last_hidden_state[0, len(PROMPT) - 1 :]
        found.append((hidden_TH[predictors] - alone_TH).abs().max().item())
    return found


def alibi_of(position_RT, mask, num_heads, dtype):
    """BLOOM's own bias, had its cumulative sum come to these positions."""
    by_column_HRT = build_alibi_tensor(torch.ones_like(position_RT), num_heads, dtype)
    slope_HR1 = by_column_HRT[:, :, 1:2]
    return slope_HR1 * position_RT


def test_bloom_takes_no_mask_of_who_sees_whom(bloom):
    rows, _ = pack_rows([token_tree(PROMPT, TEXTS)], padding=0, hidden_size=32)
    mask = attention_mask(rows, bloom.config, bloom.dtype)
    with pytest.raises(ValueError, match="too many values to unpack"):
        bloom.get_decoder()(input_ids=rows.input_ids_RT, attention_mask=mask, position_ids=rows.position_ids_RT)


def test_bloom_counts_columns_where_a_tree_has_positions(bloom):
    first, second = differences(bloom, lambda rows: torch.arange(rows.input_ids_RT.shape[1])[None])
    assert first < 1e-5, "whose columns are its positions"
    assert second > 1e-2, "which stands behind the first"
    assert max(differences(bloom, lambda rows: rows.position_ids_RT)) < 1e-5, "positions are all that it lacks"


def test_who_is_packable(unpacked, llama):
    assert (packable(unpacked), layout_for(unpacked)) == (False, "one_text_a_row")
    assert packable(llama)
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"mamba is recurrent: .* take a model of attention layers only"):
        packable(mamba)


def test_block_masks_are_not_for_them(unpacked):
    before = unpacked.config._attn_implementation
    use_block_masks(unpacked)
    assert unpacked.config._attn_implementation == before
    assert not takes_block_masks(unpacked)


@given(texts, st.lists(texts, max_size=5))
def test_separate_texts_are_the_texts(prompt, continuations):
    separate = separate_texts(token_tree(prompt, continuations))
    assert [tree.ids for tree in separate] == [prompt + text[:-1] for text in continuations] or not continuations
    assert separate == [token_tree(prompt, [text]) for text in continuations] or separate == [token_tree(prompt, [])]


@torch.no_grad()
@given(trees=st.lists(st.tuples(texts, st.lists(texts, max_size=3)), min_size=1, max_size=4))
def test_every_row_is_one_text_as_the_model_reads_it_alone(unpacked, trees):
    planted = [text for prompt, continuations in trees for text in separate_texts(token_tree(prompt, continuations))]
    rows, starts = pack_rows(planted, padding=9, hidden_size=32, layout="one_text_a_row")
    width = rows.input_ids_RT.shape[1]
    assert starts == list(range(0, len(planted) * width, width))
    assert width == max(len(tree.ids) for tree in planted)
    assert rows.tokens == padding_mask(rows).sum() == sum(len(tree.ids) for tree in planted)
    hidden_NH = hidden_at(unpacked, rows, torch.arange(len(planted) * width))
    for start, tree in zip(starts, planted, strict=True):
        alone_TH = unpacked.get_decoder()(input_ids=torch.tensor([tree.ids])).last_hidden_state[0]
        torch.testing.assert_close(hidden_NH[start : start + len(tree.ids)], alone_TH, rtol=1e-4, atol=1e-5)


def test_mpts_positions_have_an_end_and_blooms_have_none():
    assert positions_of(MptConfig(max_seq_len=64)) == 64
    assert positions_of(BloomConfig()) is None
    with pytest.raises(ValueError, match=r"a prompt: 65 tokens do not fit the 64 positions \(max_seq_len\) of mpt"):
        check_context(MptConfig(max_seq_len=64), 65, "a prompt")
