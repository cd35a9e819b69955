"""Training models that are not packable: losses and gradients are those of every text in a plain forward of its own."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BloomConfig, MptConfig

from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.models.load import load_tokenizer
from raw2s.training.batching import collate, tokenize_row
from raw2s.training.objectives import PackedModel, class_accuracy, pair_references, token_accuracy

FAMILIES = {
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0, attention_dropout=0, initializer_range=0.1),
    "mpt": MptConfig(d_model=32, n_layers=2, n_heads=4, max_seq_len=96, initializer_range=0.1),
}
TARGETS = {
    "wake me up at nine am\n": ['{ "time" : "nine am" }', '{ "time" : "nine" }', '{ "date" : "nine am" }'],
    "stop\n": ["{}", '{ "time" : "now" }'],
}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("tiny-gpt2")


@pytest.fixture(params=FAMILIES)
def config(request, tokenizer):
    torch.manual_seed(0)
    config = FAMILIES[request.param]
    config.vocab_size, config.num_labels = len(tokenizer), 3
    return config


def batch_of(packed, rows, tokenizer):
    batch = collate(rows, tokenizer, packed.hidden_size, packed.layout)
    texts = sum(max(1, len(row.sequences)) for row in rows)
    assert batch.rows.input_ids_RT.shape[0] == texts, "a row for every text"
    assert batch.rows.tokens < batch.rows.input_ids_RT.numel(), "and padding beside the shorter ones"
    return batch


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(model, found, plain):
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    one, other = gradients(model, found), gradients(model, plain)
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def logprob(model, tokenizer, prompt, text):
    """Of the text's tokens, end marker included, in one plain forward."""
    before, ids = encode_prompt(tokenizer, prompt), encode_target(tokenizer, text)[0]
    logits_TV = model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
    return logits_TV.log_softmax(dim=1)[range(len(ids)), ids]


def test_token_losses(config, tokenizer):
    model = AutoModelForCausalLM.from_config(config).train()
    rows = [
        tokenize_row(
            TrainingRow(id=0, prompt=p, targets=[TextTarget(text=t, weights=[1.0]) for t in texts]), tokenizer, "targets"
        )
        for p, texts in TARGETS.items()
    ]
    packed = PackedModel(model)
    found, _ = packed(batch_of(packed, rows, tokenizer), token_accuracy)
    plain = -torch.cat([logprob(model, tokenizer, p, text) for p, texts in TARGETS.items() for text in texts]).sum()
    assert_same(model, found, plain)


def test_pairs_score_each_text_alone(config, tokenizer):
    model = AutoModelForCausalLM.from_config(config).train()
    pairs = [TrainingRow(id=0, prompt=p, chosen=texts[0], rejected=texts[1], margin=1.0) for p, texts in TARGETS.items()]
    packed = PackedModel(model)
    batch = batch_of(packed, [tokenize_row(pair, tokenizer, "pair") for pair in pairs], tokenizer)
    with torch.no_grad():
        found_P2 = packed(batch, pair_references)[1]["reference_P2"]
        plain = [[logprob(model, tokenizer, p, text).sum() for text in texts[:2]] for p, texts in TARGETS.items()]
    torch.testing.assert_close(found_P2, torch.tensor(plain), rtol=1e-5, atol=1e-4)


def test_class_loss(config, tokenizer):
    model = AutoModelForSequenceClassification.from_config(config).train()
    rows = [tokenize_row(TrainingRow(id=0, prompt=p, probabilities=[0.0, 1.0, 0.0]), tokenizer, "probabilities") for p in TARGETS]
    packed = PackedModel(model)
    found, _ = packed(batch_of(packed, rows, tokenizer), class_accuracy)
    logits_PK = torch.cat([model(torch.tensor([encode_prompt(tokenizer, p)])).logits for p in TARGETS])
    assert_same(model, found, F.cross_entropy(logits_PK, torch.ones(len(TARGETS), dtype=torch.long), reduction="sum"))
