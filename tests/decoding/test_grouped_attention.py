import copy

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from raw2s.decoding.grouped_attention import NAME, attend, grouped_heads


@pytest.mark.parametrize(("heads", "shared"), [(8, 8), (8, 2), (6, 1)])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_it_is_hugging_faces_attention(heads, shared, scaling):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, n, m, 4, dtype=torch.float64) for n, m in ((heads, 5), (shared, 11), (shared, 11)))
    bias = torch.zeros(3, 1, 5, 11, dtype=torch.float64).masked_fill(torch.rand(3, 1, 5, 11) < 0.4, -torch.inf)
    bias[..., 0] = 0
    module = torch.nn.Module()
    module.num_key_value_groups = heads // shared
    expected, _ = sdpa_attention_forward(module, query, key, value, bias, scaling=scaling)
    found, _ = attend(module, query, key, value, bias, scaling=scaling)
    assert found.shape == (3, 5, heads, 4)
    torch.testing.assert_close(found, expected)


def test_the_model_is_as_before_afterwards(llama):
    llama = copy.deepcopy(llama)
    with pytest.raises(KeyError), grouped_heads(llama):
        assert llama.model.layers[0].self_attn.config._attn_implementation == NAME
        raise KeyError
    assert llama.config._attn_implementation == "sdpa"
    llama.set_attn_implementation("eager")
    with grouped_heads(llama):
        assert llama.config._attn_implementation == "eager"
