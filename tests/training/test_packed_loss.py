"""The packed losses and their gradients against plain ones: every sequence a padded row of its own through the model itself."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
)

from raw2s.decoding.block_masks import use_block_masks
from raw2s.decoding.bridge import words
from raw2s.decoding.tokens import encode_prompt
from raw2s.losses import FusedHead
from raw2s.models.load import load_tokenizer
from raw2s.training.batching import collate, tokenize_row
from raw2s.training.job import LossSettings
from raw2s.training.objectives import Coefficients, PackedModel, class_loss, preference_loss, token_loss
from raw2s.training.rows import TextTarget, TrainingRow

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
GATED = {"intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES = {
    "gpt2": GPT2Config(**SIZE, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0),
    "opt": OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=32, dropout=0),
    "gpt_neox": GPTNeoXConfig(**SIZE, intermediate_size=64),
    "llama": LlamaConfig(**SIZE, **GATED),
    "qwen2": Qwen2Config(**SIZE, **GATED),
    "qwen2_sliding": Qwen2Config(**SIZE, **GATED, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "mistral": MistralConfig(**SIZE, **GATED, sliding_window=8),
}
TARGETS = {
    "wake me up at nine am\n": ['{ "time" : "nine am" }', '{ "time" : "nine" }', '{ "date" : "nine am" }'],
    "what is the weather in paris next wednesday\n": ['{ "place_name" : "paris", "date" : "next wednesday" }', "{}"],
    "stop\n": ["{}", '{ "time" : "now" }'],
    "play jazz\n": ['{ "music_genre" : "jazz" }'],
}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny-gpt2")


@pytest.fixture(params=FAMILIES)
def config(request, tokenizer):
    config = FAMILIES[request.param]
    config.vocab_size, config.pad_token_id, config.num_labels = len(tokenizer), tokenizer.eos_token_id, 3
    torch.manual_seed(0)
    return config


class PaddedModel(torch.nn.Module):
    """What `PackedModel` does, with one padded row per prompt and sequence and nothing shared."""

    def __init__(self, model, rows):
        super().__init__()
        self.model, self.rows, self.head = model, rows, FusedHead(model.get_output_embeddings())

    def forward(self, batch, objective):
        flat = [(row.tree.ids[: row.tree.predictors[0][0] + 1], s.ids) for row in self.rows for s in row.sequences]
        ids = pad_sequence([torch.tensor(prompt + target) for prompt, target in flat], batch_first=True)
        mask = pad_sequence([torch.ones(len(prompt + target)) for prompt, target in flat], batch_first=True)
        hidden_BTH = self.model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden_NH = torch.cat([hidden_BTH[b, len(p) - 1 : len(p) + len(t) - 1] for b, (p, t) in enumerate(flat)])
        return objective(self.head, hidden_NH, batch)


def assert_same(model, packed, padded):
    """The losses of two ways, and their gradients in every weight."""
    losses, gradients = [], []
    for loss in (packed, padded):
        model.zero_grad()
        value = loss()
        value.backward()
        losses.append(value.item())
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def soft_target(text: str, weights: list[float]) -> TextTarget:
    count = len(words(text)) + 1
    scores = [[-0.1 * (i + 1) * (w + 1) for w in range(count)] for i in range(len(weights))]
    return TextTarget(text=text, weights=weights, word_logprobs=scores)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("edl", [False, True], ids=["ce", "edl"])
def test_token_losses(config, tokenizer, soft, edl):
    model = AutoModelForCausalLM.from_config(config).train()
    targets = {
        prompt: [
            soft_target(text, [0.3, 0.2][: k + 1]) if soft else TextTarget(text=text, weights=[0.5])
            for k, text in enumerate(texts[:2])
        ]
        for prompt, texts in TARGETS.items()
    }
    rows = [tokenize_row(TrainingRow(id=0, prompt=p, targets=t), tokenizer, "supervised") for p, t in targets.items()]
    settings, at = LossSettings(edl=edl, gamma_max=0.2), Coefficients(gamma=0.1, kl=1e-3 if edl else 0.0)
    batch = collate(rows, tokenizer, config.hidden_size)
    assert_same(
        model,
        lambda: PackedModel(model)(batch, partial(token_loss, settings=settings, at=at))[0],
        lambda: PaddedModel(model, rows)(batch, partial(token_loss, settings=settings, at=at))[0],
    )


def test_preference_loss(config, tokenizer):
    model = AutoModelForCausalLM.from_config(config).train()
    pairs = [TrainingRow(id=0, prompt=prompt, chosen=texts[0], rejected=texts[-1]) for prompt, texts in TARGETS.items()]
    rows = [replace(tokenize_row(pair, tokenizer, "preference"), reference=(-30.0, -31.0)) for pair in pairs]
    settings, at = LossSettings(beta=0.3, label_smoothing=0.1), Coefficients(gamma=0.0, kl=0.0)
    batch = collate(rows, tokenizer, config.hidden_size)
    assert_same(
        model,
        lambda: PackedModel(model)(batch, partial(preference_loss, settings=settings, at=at))[0],
        lambda: PaddedModel(model, rows)(batch, partial(preference_loss, settings=settings, at=at))[0],
    )


@pytest.mark.parametrize("blocks", [False, True], ids=["dense", "blocks"])
@pytest.mark.parametrize("layout", ["bucketed_rows", "one_row"])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_neither_layout_nor_filler_nor_block_masks_change_a_loss(config, tokenizer, layout, blocks, uncompiled_flex):
    """Against narrow rows under the dense mask, with the gradients of every weight."""
    model = AutoModelForCausalLM.from_config(config).train()
    rows = [
        tokenize_row(TrainingRow(id=0, prompt=p, targets=[soft_target(text, [0.5]) for text in texts]), tokenizer, "supervised")
        for p, texts in TARGETS.items()
    ]
    objective = partial(token_loss, settings=LossSettings(edl=True, gamma_max=0.2), at=Coefficients(gamma=0.1, kl=1e-3))
    narrow, wide = (collate(rows, tokenizer, config.hidden_size, chosen) for chosen in ("rows", layout))
    assert wide.rows.input_ids_RT.shape != narrow.rows.input_ids_RT.shape

    def laid_out():
        model.set_attn_implementation("sdpa")
        if blocks:
            use_block_masks(model)
        return PackedModel(model)(wide, objective)[0]

    def plainly():
        model.set_attn_implementation("sdpa")
        return PackedModel(model)(narrow, objective)[0]

    assert_same(model, laid_out, plainly)
    assert PackedModel(model).layout == "rows"


@pytest.mark.parametrize("edl", [False, True], ids=["ce", "edl"])
def test_class_loss(config, tokenizer, edl):
    model = AutoModelForSequenceClassification.from_config(config).train()
    rows = [
        tokenize_row(TrainingRow(id=0, prompt=prompt, probabilities=[0.2, 0.5, 0.3]), tokenizer, "classification")
        for prompt in TARGETS
    ]
    settings, at = LossSettings(edl=edl), Coefficients(gamma=0.1, kl=1e-3 if edl else 0.0)
    batch = collate(rows, tokenizer, config.hidden_size)

    def alone():
        return torch.cat([model(torch.tensor([encode_prompt(tokenizer, prompt)])).logits for prompt in TARGETS])

    assert_same(
        model,
        lambda: PackedModel(model)(batch, partial(class_loss, settings=settings, at=at))[0],
        lambda: class_loss(torch.nn.Identity(), alone(), batch, settings, at)[0],
    )
