"""Dropout when a model is asked: in every layer of a model without its own, repeatable, and gone afterwards."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from raw2s.models.dropout import RATE, dropping_out
from raw2s.models.layers import decoder_layers

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
OWN = {
    "gpt2": GPT2Config(**SIZE, bos_token_id=0, eos_token_id=0),
    "opt": OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, dropout=0.2),
}
NONE = {
    "gpt2": GPT2Config(**SIZE, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0, bos_token_id=0, eos_token_id=0),
    "opt": OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, dropout=0),
    "gpt_neox": GPTNeoXConfig(**SIZE, intermediate_size=64),
    "llama": LlamaConfig(**SIZE, intermediate_size=64, num_key_value_heads=2),
}
IDS = torch.arange(40).view(2, 20)


def made(config, auto=AutoModelForCausalLM):
    torch.manual_seed(0)
    return auto.from_config(config).eval()


@torch.inference_mode()
def passes(model, count=2):
    with dropping_out(model):
        return torch.stack([model(IDS, use_cache=False).logits for _ in range(count)])


@pytest.mark.parametrize("config", [*OWN.values(), *NONE.values()], ids=[*(f"{name}-own" for name in OWN), *NONE])
def test_passes_differ_come_again_and_leave_nothing_behind(config):
    model = made(config)
    with torch.inference_mode():
        before, state = model(IDS, use_cache=False).logits, torch.get_rng_state()
        first, second = passes(model)
        assert not torch.equal(first, second)
        assert torch.equal(torch.stack([first, second]), passes(model))
        assert torch.equal(before, model(IDS, use_cache=False).logits)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in model.modules())


def test_a_classifier_drops_out_too():
    config = LlamaConfig(**SIZE, intermediate_size=64, num_key_value_heads=2, num_labels=3, pad_token_id=0)
    first, second = passes(made(config, AutoModelForSequenceClassification))
    assert not torch.equal(first, second)


def test_without_dropout_of_its_own_a_tenth_of_every_layers_output_is_gone():
    model, seen = made(NONE["llama"]), []
    for layer in decoder_layers(model)[1:]:
        layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    model.model.norm.register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0]))
    passes(model, count=10)
    assert len(seen) == 3 * 10
    assert (torch.stack(seen) == 0).float().mean().item() == pytest.approx(RATE, abs=0.005)


def test_where_it_has_its_own_there_is_no_other():
    model = made(OWN["gpt2"])
    with dropping_out(model):
        assert {module.p for module in model.modules() if isinstance(module, nn.Dropout) and module.training} == {0.1}
        assert not any(layer._forward_hooks for layer in decoder_layers(model))


def test_a_pass_that_fails_leaves_the_model_as_it_was():
    model = made(NONE["llama"])
    with pytest.raises(ValueError, match="too long"), dropping_out(model):
        raise ValueError("too long")
    assert not any(layer._forward_hooks for layer in decoder_layers(model))
