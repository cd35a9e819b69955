import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig

from raw2s.models import layers
from raw2s.models.layers import checkpoint_layers, compile_layers, decoder_layers

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 64}
FAMILIES = {
    "gpt2": GPT2Config(**SIZE, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0, bos_token_id=0, eos_token_id=0),
    "opt": OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, dropout=0),
    "gpt_neox": GPTNeoXConfig(**SIZE, intermediate_size=64),
    "llama": LlamaConfig(**SIZE, intermediate_size=64, num_key_value_heads=2),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[request.param]).train()


def gradients(model, tokens=20):
    model.zero_grad()
    ids = torch.arange(2 * tokens).view(2, tokens) % 50
    model(ids, use_cache=False).logits.logsumexp(-1).mean().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.slow
def test_all_layers_share_a_graph_which_a_cache_does_not_enter(model, monkeypatch):
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(layers.torch, "compile", functools.partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    plain = [gradients(model, tokens) for tokens in (20, 24, 30)]
    compile_layers(model)
    assert len(decoder_layers(model)) == 4
    for tokens, expected in zip((20, 24, 30), plain, strict=True):
        torch.testing.assert_close(gradients(model, tokens), expected)
    assert counter.frame_count == 2, "the first shape's graph and one for any shape"
    with torch.no_grad():
        model.eval()(torch.arange(10)[None], use_cache=True)
    assert counter.frame_count == 2
    assert all("forward" not in name for name in model.state_dict())


@pytest.mark.parametrize("share, computed_twice", [(1.0, 4), (0.5, 2), (0.25, 1)])
def test_a_share_of_the_layers_is_computed_twice_and_gives_the_same_gradients(model, share, computed_twice):
    expected = gradients(model)
    calls = []
    for layer in decoder_layers(model):
        module = next(
            child for child in layer.modules() if isinstance(child, torch.nn.LayerNorm) or "Norm" in type(child).__name__
        )
        module.register_forward_hook(lambda module, *_: calls.append(id(module)))
    checkpoint_layers(model, share)
    found = gradients(model)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    assert sum(calls.count(name) == 2 for name in set(calls)) == computed_twice
