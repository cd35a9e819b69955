"""Random tiny models of every supported family and two small byte-level BPE tokenizers."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

TEXTS = [
    "wake me up at nine am on friday [time : nine am] [date : friday]",
    "play jazz by miles davis in the kitchen [genre : jazz] [artist : miles davis]",
    "what is the weather in paris tomorrow [place : paris] [date : tomorrow]",
]
SPECIALS = ["<|endoftext|>", "<s>", "<pad>"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
# A wide initialization: with the usual 0.02 every distribution is nearly flat and beams are ties.
WIDE = {"initializer_range": 0.3}
GATED = {**WIDE, "intermediate_size": 64, "num_key_value_heads": 2}
OPT = {"init_std": 0.3, "ffn_dim": 64}
FAMILIES = {
    "gpt2": (GPT2Config, WIDE),
    "opt": (OPTConfig, {**OPT, "word_embed_proj_dim": 32}),
    # OPT-350M's shape: narrower embeddings, layer norm after attention.
    "opt_projected": (OPTConfig, {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt_neox": (GPTNeoXConfig, {**WIDE, "intermediate_size": 64}),
    "llama": (LlamaConfig, GATED),
    "qwen2": (Qwen2Config, GATED),
    "qwen2_sliding": (Qwen2Config, {**GATED, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "mistral": (MistralConfig, {**GATED, "sliding_window": 8}),
}
# These count the positions of their tokens themselves (ALiBi), so every text has a row of its own.
UNPACKED = {
    "bloom": (BloomConfig, WIDE),
    "mpt": (MptConfig, {**WIDE, "max_seq_len": 64}),
    "falcon_alibi": (FalconConfig, {**WIDE, "alibi": True}),
}
EVERY = FAMILIES | UNPACKED


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    return bpe


@pytest.fixture(scope="session")
def tokenizer(bpe) -> PreTrainedTokenizerFast:
    """As GPT-2's: nothing prepended, no pad token."""
    return PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(bpe), eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def bos_tokenizer(bpe) -> PreTrainedTokenizerFast:
    """As OPT's: BOS prepended, a pad token of its own; and, as some Llama tokenizers are set, an end marker appended."""
    bpe = copy.deepcopy(bpe)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[(token, bpe.token_to_id(token)) for token in ("<s>", "<|endoftext|>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<pad>")


def random_model(auto, family: str, tokenizer, **changes):
    config_class, shape = EVERY[family]
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    torch.manual_seed(0)
    return auto.from_config(config_class(vocab_size=len(tokenizer), **SIZE, **shape, **ids, **changes)).eval()


@pytest.fixture(scope="session", params=FAMILIES)
def model(request, tokenizer):
    return random_model(AutoModelForCausalLM, request.param, tokenizer)


@pytest.fixture(scope="session", params=EVERY)
def any_model(request, tokenizer):
    return random_model(AutoModelForCausalLM, request.param, tokenizer)


@pytest.fixture(scope="session", params=UNPACKED)
def unpacked(request, tokenizer):
    return random_model(AutoModelForCausalLM, request.param, tokenizer)


@pytest.fixture(scope="session")
def llama(tokenizer):
    return random_model(AutoModelForCausalLM, "llama", tokenizer)


@pytest.fixture(scope="session", params=EVERY)
def classifier(request, tokenizer):
    return random_model(AutoModelForSequenceClassification, request.param, tokenizer, num_labels=3)
