"""What a layer keeps, counted on the meta device, against what autograd keeps of a real layer, and by hand."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from raw2s.decoding.heads import hidden_at
from raw2s.decoding.packing import pack_rows, token_tree
from raw2s.models.layers import decoder_layers
from raw2s.models.load import load_model, load_model_config
from raw2s.sizing.activations import layer_memory
from raw2s.sizing.model import meta_model, model_size

LLAMA = LlamaConfig(
    vocab_size=512, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)  # fmt: skip


def kept_by_autograd(name: str, tokens: int) -> float:
    """Bytes a token that the real layer's forward leaves, on a CPU."""
    model = load_model(name, "text").train()
    layer, kept = decoder_layers(model)[0], {}
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    forward = layer.forward

    def counting(*args, **options):
        shared = {x.untyped_storage()._cdata for x in (*args[1:], *options.values()) if isinstance(x, torch.Tensor)}
        shared |= {x.untyped_storage()._cdata for x in options.get("position_embeddings") or ()}

        def pack(x):
            if x.untyped_storage()._cdata not in parameters | shared:
                kept[x.untyped_storage()._cdata] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            return forward(*args, **options)

    layer.forward = counting
    rows, _ = pack_rows([token_tree(list(range(10, 10 + tokens)), [])], padding=0, hidden_size=64)
    hidden_at(model, rows, torch.arange(tokens)).sum()
    return sum(x.untyped_storage().nbytes() for x in kept.values()) / tokens


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox", "tiny-llama"])
def test_as_autograd_keeps_on_a_cpu(name):
    counted = layer_memory(meta_model(load_model_config(name)))
    assert counted.saved == pytest.approx(kept_by_autograd(name, 128), rel=0.02)
    assert counted.working < counted.saved


def test_a_compiled_llama_keeps_what_its_products_read():
    """In numbers of the hidden size: the layer's input, two normalized inputs, queries, attention's output and its residual; keys
    and values; gate, up and their product."""
    layer = layer_memory(meta_model(LLAMA, dtype=torch.bfloat16), compiled=True, repeated_heads=False)
    by_hand = 6 + 2 * 2 / 4 + 3 * 192 / 64
    assert layer.saved / layer.hidden == pytest.approx(by_hand, rel=0.06)  # and fp32 figures of a row's norm and heads
    assert layer_memory(meta_model(LLAMA, dtype=torch.bfloat16)).saved > 1.3 * layer.saved


def test_repeated_heads_cost_what_they_hold():
    model = meta_model(LLAMA)
    apart = layer_memory(model).saved - layer_memory(model, repeated_heads=False).saved
    assert apart == 4 * 2 * (64 - 32), "keys and values, of four heads instead of two"


def test_sizes_are_the_models_own():
    model = load_model("tiny-llama", "text")
    size = model_size(meta_model(load_model_config("tiny-llama")))
    assert size.parameters == size.trained == sum(p.numel() for p in model.parameters())
    assert (size.layers, size.hidden, size.key_value, size.head_rows) == (4, 192, 384, 2048)


def test_adapters_are_rank_times_inputs_and_outputs():
    gpt2 = GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4)
    size = model_size(meta_model(gpt2), lora_rank=4)
    assert size.trained == 2 * 4 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))
    assert model_size(meta_model(gpt2), lora_rank=4, lora_modules=["c_attn"]).trained == 2 * 4 * (64 + 192)
    classes = model_size(meta_model(gpt2, classes=3), lora_rank=4)
    assert classes.trained == size.trained + 3 * 64
