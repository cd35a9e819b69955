import copy

import pytest
import torch
from model_folders import copied
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, Qwen2Config
from transformers.activations import NewGELUActivation

from raw2s.models.load import fuse_gelu, inference_dtype, load_model, load_tokenizer, load_weights, own_dropout
from raw2s.models.source import licence_of

SIZE = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
DROPPING = {
    "gpt2": GPT2Config(**SIZE, attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5),
    "opt": OPTConfig(**SIZE, ffn_dim=32, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5, layerdrop=0.5),
    "gpt_neox": GPTNeoXConfig(**SIZE, intermediate_size=32, attention_dropout=0.5, hidden_dropout=0.5),
    "llama": LlamaConfig(**SIZE, intermediate_size=32, attention_dropout=0.5),
    "qwen2": Qwen2Config(**SIZE, intermediate_size=32, num_key_value_heads=1, attention_dropout=0.5),
    "bloom": BloomConfig(**SIZE, attention_dropout=0.5, hidden_dropout=0.5),
}


def test_the_fused_gelu_is_the_same_function():
    torch.manual_seed(0)
    written_out = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2)).eval()
    fused = fuse_gelu(copy.deepcopy(written_out))
    assert sum(isinstance(module, NewGELUActivation) for module in written_out.modules()) == 2
    assert not any(isinstance(module, NewGELUActivation) for module in fused.modules())
    assert fused.state_dict().keys() == written_out.state_dict().keys()
    ids_BT = torch.arange(20).view(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(fused(ids_BT).logits, written_out(ids_BT).logits, rtol=1e-5, atol=1e-6)


def test_the_exact_gelu_stays():
    model = AutoModelForCausalLM.from_config(
        GPTNeoXConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    before = [type(module) for module in model.modules()]
    assert [type(module) for module in fuse_gelu(model).modules()] == before


def test_a_loaded_model_computes_as_its_checkpoint_says():
    """Which activations are fused, on GPUs, is said where models are put there."""
    assert any(isinstance(module, NewGELUActivation) for module in load_model("tiny-gpt2", "text").modules())


@pytest.mark.parametrize(
    ("precision", "cuda", "dtype"),
    [
        ("auto", True, torch.bfloat16), ("auto", False, torch.float32), ("fp32", True, torch.float32),
        ("fp32", False, torch.float32), ("bf16", True, torch.bfloat16), ("bf16", False, torch.bfloat16),
    ],
)  # fmt: skip
def test_auto_is_half_on_a_gpu_only(precision, cuda, dtype):
    assert inference_dtype(precision, cuda) == dtype


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form 'generation' is none of text and classes"):
        load_model("tiny-gpt2", "generation")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("form", ["text", "classes"])
@pytest.mark.parametrize("family", DROPPING)
def test_without_dropout_a_model_trains_as_it_is_tested(tmp_path, family, form, attention):
    AutoModelForCausalLM.from_config(DROPPING[family]).save_pretrained(tmp_path)
    ids_BT = torch.arange(1, 25).view(2, 12)
    same = []
    for dropout in (True, False):
        torch.manual_seed(0)
        model, _ = load_weights(str(tmp_path), form, ("a", "b"), dtype=torch.float32, dropout=dropout)
        model.set_attn_implementation(attention)
        tested, trained = (model.train(mode)(ids_BT).logits for mode in (False, True))
        same.append(torch.allclose(tested, trained, atol=1e-6))
        assert any(own_dropout(model.config).values()) == dropout
    assert same == [False, True]


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# It\n", "apache-2.0, as its card says"),
        ("---\nlanguage: en\n---\nlicense: of another thing\n", "its folder has no card that says a licence"),
        (None, "its folder has no card that says a licence"),
    ],
)
def test_a_models_licence_is_what_its_card_says(tmp_path, card, said):
    if card:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(str(tmp_path)) == f"{tmp_path}: {said}"


def test_of_a_hub_model_it_is_said_where_the_licence_stands():
    assert licence_of("someone/some-model") == "someone/some-model: see its page on the hub for the licence"
    assert licence_of("tiny-opt") == "tiny-opt: cc-by-4.0, as its card says"


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("breaks", "load"),
    [
        (cut_short, lambda name: load_model(name, "text")),
        (cut_short, lambda name: load_model(name, "classes", ("a", "b"))),
        (lambda folder: (folder / "model.safetensors").unlink(), lambda name: load_model(name, "text")),
        (lambda folder: (folder / "config.json").write_text("{"), lambda name: load_model(name, "text")),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), load_tokenizer),
    ],
)
def test_what_cannot_be_loaded_is_named_in_a_value_error_which_nobody_tries_again(tmp_path, breaks, load):
    name = copied(tmp_path / "broken")
    load(name)
    breaks(tmp_path / "broken")
    with pytest.raises(ValueError) as told:
        load(name)
    assert str(told.value).startswith(f"model {name} cannot be loaded (")
    assert str(told.value).endswith("; mend its files, or name another")
    assert "\n" not in str(told.value)
