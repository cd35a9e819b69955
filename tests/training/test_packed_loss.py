"""The packed losses and their gradients against plain ones: every sequence a padded row of its own through the model itself."""

from dataclasses import replace

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

from raw2s.config import TrainingConfig
from raw2s.decoding.block_masks import use_block_masks
from raw2s.decoding.bridge import words
from raw2s.decoding.tokens import encode_prompt
from raw2s.labels.rows import RowKind, TextTarget, TrainingRow
from raw2s.losses import FusedHead
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.preference import PreferenceSection
from raw2s.methods.reverse import ReverseSection
from raw2s.models.load import load_tokenizer
from raw2s.training.batching import collate, tokenize_row
from raw2s.training.job import Job
from raw2s.training.objectives import Objective, PackedModel, objective_of

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


def objective(section: LossSection, rows: RowKind) -> Objective:
    """At the last step of a run, where gamma and the regulariser's weight are whole."""
    job = Job(
        name="test", model="", task="", form="text", classes=(), rows=rows, train_file="", validation_file="",
        training=TrainingConfig(), loss=section, seed=0,
    )  # fmt: skip
    return objective_of(job, 1, 1)[0]


def soft_target(text: str, weights: list[float]) -> TextTarget:
    count = len(words(text)) + 1
    scores = [[-0.1 * (i + 1) * (w + 1) for w in range(count)] for i in range(len(weights))]
    return TextTarget(text=text, weights=weights, word_logprobs=scores)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    "section",
    [
        CrossEntropySection(gamma_max=0.1),
        EvidentialSection(gamma_max=0.1, kl_weight=1e-3),
        ReverseSection(name="reverse_kl", gamma_max=0.1),
    ],
    ids=lambda section: section.name,
)
def test_token_losses(config, tokenizer, soft, section):
    model = AutoModelForCausalLM.from_config(config).train()
    targets = {
        prompt: [
            soft_target(text, [0.3, 0.2][: k + 1]) if soft else TextTarget(text=text, weights=[0.5])
            for k, text in enumerate(texts[:2])
        ]
        for prompt, texts in TARGETS.items()
    }
    rows = [tokenize_row(TrainingRow(id=0, prompt=p, targets=t), tokenizer, "targets") for p, t in targets.items()]
    batch, loss = collate(rows, tokenizer, config.hidden_size), objective(section, "targets")
    assert_same(model, lambda: PackedModel(model)(batch, loss)[0], lambda: PaddedModel(model, rows)(batch, loss)[0])


def test_preference_loss(config, tokenizer):
    model = AutoModelForCausalLM.from_config(config).train()
    pairs = [
        TrainingRow(id=0, prompt=prompt, chosen=texts[0], rejected=texts[-1], margin=1.0) for prompt, texts in TARGETS.items()
    ]
    rows = [replace(tokenize_row(pair, tokenizer, "pair"), reference=(-30.0, -31.0)) for pair in pairs]
    batch, loss = collate(rows, tokenizer, config.hidden_size), objective(PreferenceSection(beta=0.3), "pair")
    assert_same(model, lambda: PackedModel(model)(batch, loss)[0], lambda: PaddedModel(model, rows)(batch, loss)[0])


@pytest.mark.parametrize("blocks", [False, True], ids=["dense", "blocks"])
@pytest.mark.parametrize("layout", ["bucketed_rows", "one_row"])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_neither_layout_nor_padding_nor_block_masks_change_a_loss(config, tokenizer, layout, blocks, uncompiled_flex):
    """Against narrow rows under the dense mask, with the gradients of every weight."""
    model = AutoModelForCausalLM.from_config(config).train()
    rows = [
        tokenize_row(TrainingRow(id=0, prompt=p, targets=[soft_target(text, [0.5]) for text in texts]), tokenizer, "targets")
        for p, texts in TARGETS.items()
    ]
    loss = objective(EvidentialSection(gamma_max=0.1, kl_weight=1e-3), "targets")
    narrow, wide = (collate(rows, tokenizer, config.hidden_size, chosen) for chosen in ("rows", layout))
    assert wide.rows.input_ids_RT.shape != narrow.rows.input_ids_RT.shape

    def laid_out():
        model.set_attn_implementation("sdpa")
        if blocks:
            use_block_masks(model)
        return PackedModel(model)(wide, loss)[0]

    def plainly():
        model.set_attn_implementation("sdpa")
        return PackedModel(model)(narrow, loss)[0]

    assert_same(model, laid_out, plainly)
    assert PackedModel(model).layout == "rows"


@pytest.mark.parametrize(
    "section",
    [CrossEntropySection(gamma_max=0.1), EvidentialSection(gamma_max=0.1, kl_weight=1e-3)],
    ids=lambda section: section.name,
)
def test_class_loss(config, tokenizer, section):
    model = AutoModelForSequenceClassification.from_config(config).train()
    rows = [
        tokenize_row(TrainingRow(id=0, prompt=prompt, probabilities=[0.2, 0.5, 0.3]), tokenizer, "probabilities")
        for prompt in TARGETS
    ]
    batch, loss = collate(rows, tokenizer, config.hidden_size), objective(section, "probabilities")

    def alone():
        return torch.cat([model(torch.tensor([encode_prompt(tokenizer, prompt)])).logits for prompt in TARGETS])

    assert_same(
        model,
        lambda: PackedModel(model)(batch, loss)[0],
        lambda: loss(torch.nn.Identity(), alone(), batch)[0],
    )
