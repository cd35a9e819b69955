"""Block masks against the dense mask; the attention itself against SDPA is in training/test_packed_loss.py."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

from raw2s.decoding.block_masks import BLOCK, block_mask, takes_block_masks, use_block_masks
from raw2s.decoding.heads import layout_for
from raw2s.decoding.packing import attention_mask, bucket, pack_rows, token_tree

trees = st.tuples(st.integers(1, 300), st.lists(st.integers(1, 150), max_size=3))
WINDOW = 50


def planted(lengths):
    """Trees of a prompt and continuations that share half of the shortest."""
    return [
        token_tree([1] * prompt, [[2] * (min(texts) // 2) + [3 + k] * (n - min(texts) // 2) for k, n in enumerate(texts)])
        for prompt, texts in lengths
    ]


@given(st.lists(trees, min_size=1, max_size=4), st.sampled_from(["rows", "one_row"]), st.sampled_from([None, WINDOW]))
@settings(max_examples=25)
def test_the_table_has_every_block_that_the_dense_mask_sees_and_no_other(lengths, layout, window):
    rows, _ = pack_rows(planted(lengths), padding=0, hidden_size=64, layout=layout)
    width = rows.end_RT.shape[1]
    mask = block_mask(rows, window)
    dense_RTT = attention_mask(rows, GPT2Config() if window is None else MistralConfig(sliding_window=window), torch.float32)
    sees_RTT = dense_RTT[:, 0].isfinite()
    index = torch.arange(width)
    for r in range(len(sees_RTT)):
        assert torch.equal(mask.mask_mod(r, 0, index[:, None], index), sees_RTT[r])
    blocks = -(-width // BLOCK)
    tiles = (
        torch.nn.functional.pad(sees_RTT, (0, blocks * BLOCK - width) * 2)
        .unflatten(2, (blocks, BLOCK))
        .unflatten(1, (blocks, BLOCK))
    )
    some, whole = tiles.any(dim=4).any(dim=2), tiles.all(dim=4).all(dim=2)
    listed = of_lists(mask.kv_num_blocks, mask.kv_indices) | (full := of_lists(mask.full_kv_num_blocks, mask.full_kv_indices))
    assert not (full & ~whole).any()
    if window is None:
        assert torch.equal(listed, some)
        assert torch.equal(full, whole & ~torch.eye(blocks, dtype=torch.bool))
    else:
        assert not (some & ~listed).any()
    assert torch.equal(of_lists(mask.q_num_blocks, mask.q_indices), of_lists(mask.kv_num_blocks, mask.kv_indices).mT)


def of_lists(counts, indices):
    """Lists of blocks as a boolean (R, B, B)."""
    table = torch.zeros(indices[:, 0].shape, dtype=torch.bool)
    for r, row in enumerate(counts[:, 0].tolist()):
        for q, count in enumerate(row):
            table[r, q, indices[r, 0, q, :count].long()] = True
    return table


@given(st.integers(1, 300_000), st.sampled_from([16, BLOCK]))
def test_a_bucket_holds_the_tokens_with_little_padding(tokens, least):
    width = bucket(tokens, least)
    assert width % least == 0 and width == bucket(width, least)
    assert tokens <= width <= tokens + max(least - 1, tokens / 16)


def test_buckets_are_few():
    for power in range(11, 18):
        assert len({bucket(tokens, BLOCK) for tokens in range(2**power + 1, 2 ** (power + 1) + 1)}) == 16


@given(st.lists(trees, min_size=1, max_size=6))
def test_one_row_is_one_row_of_a_buckets_width(lengths):
    made = planted(lengths)
    rows, starts = pack_rows(made, padding=7, hidden_size=64, layout="one_row")
    assert rows.input_ids_RT.shape == (1, bucket(sum(len(tree.ids) for tree in made), BLOCK))
    for tree, start in zip(made, starts, strict=True):
        assert rows.input_ids_RT[0, start : start + len(tree.ids)].tolist() == tree.ids


def test_attention_that_drops_out_stays_dense():
    size = {"vocab_size": 30, "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
    llama = AutoModelForCausalLM.from_config(LlamaConfig(**size, intermediate_size=32))
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    assert not takes_block_masks(llama.train())
    for model in (llama, gpt2):
        use_block_masks(model)
        assert takes_block_masks(model.eval())
        assert layout_for(model) == "one_row"
    assert takes_block_masks(llama.train())
    assert not takes_block_masks(gpt2.train())


def test_a_model_that_takes_block_masks_still_takes_others():
    """Padding masks and caches, as a beam search gives them."""
    config = LlamaConfig(vocab_size=30, num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=32)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids, seen = torch.arange(12).view(2, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])

    def generated():
        return model.generate(input_ids=ids, attention_mask=seen, max_new_tokens=4, num_beams=2, pad_token_id=0)

    before = generated()
    use_block_masks(model)
    assert torch.equal(generated(), before)
    assert "raw2s" not in str(model.config.to_dict())
