"""A whole run's loss curve against a plain loop's: padded rows, a full softmax, autograd, torch's AdamW and clipping."""

import json

import pytest
import torch
from plain_workers import case, train_without_ray
from torch.nn.utils.rnn import pad_sequence

from raw2s.config import Normalize
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.rows import RowKind, TextTarget, TrainingRow
from raw2s.methods import LossSection
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.preference import PreferenceSection
from raw2s.models.load import load_model, load_model_config, load_tokenizer
from raw2s.training.batching import plan_epoch, tokenize_row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

HOURS = ["one", "two", "half past three", "four", "five", "quarter to six", "seven", "eight", "nine", "ten", "eleven"]
WEIGHTS = (0.75, 0.25)
EPOCHS, BATCH, RATE, BETA, EPSILON, KL, ANNEAL = 3, 4, 1e-3, 0.1, 0.1, 1e-4, 0.5
EDL = EvidentialSection(kl_weight=KL, kl_anneal_fraction=ANNEAL)
CASES: dict[str, tuple[RowKind, LossSection, Normalize]] = {
    "pairs": ("pair", PreferenceSection(beta=BETA, label_smoothing=EPSILON), "tokens"),
    "tokens": ("targets", EDL, "tokens"),
    "sequences": ("targets", EDL, "sequences"),
}


def training_row(i: int, hour: str, kind: RowKind) -> TrainingRow:
    prompt, text = f"wake me up at {hour} am\n", f'{{ "time" : "{hour} am" }}'
    if kind == "targets":
        weighed = [(text, WEIGHTS[0]), ("{}", WEIGHTS[1])]
        return TrainingRow(id=i, prompt=prompt, targets=[TextTarget(text=text, weights=[weight]) for text, weight in weighed])
    return TrainingRow(id=i, prompt=prompt, chosen=text, rejected='{ "date" : "today" }' if i % 2 else "{}", margin=1.0)


def cdpo(policy_ST, reference_ST, target_ST):
    """Eq. 12; sequences alternate chosen, rejected."""
    ratio_P2 = ((policy_ST - reference_ST) * target_ST).sum(dim=1).view(-1, 2)
    margin_P = BETA * (ratio_P2[:, 0] - ratio_P2[:, 1])
    return -((1 - EPSILON) * margin_P.sigmoid().log() + EPSILON * (-margin_P).sigmoid().log()).mean()


def edl(logits_NV, token_N, annealing):
    """Eq. 3-4 for hard labels, App. B's annealing: of every token."""
    alpha_NV = logits_NV.exp() + 1
    nll_N = alpha_NV.sum(dim=1).log() - alpha_NV[range(len(token_N)), token_N].log()
    others_NV = alpha_NV.scatter(1, token_N[:, None], 1.0)
    flat = torch.distributions.Dirichlet(torch.ones_like(others_NV))
    kl_N = torch.distributions.kl_divergence(torch.distributions.Dirichlet(others_NV), flat)
    return nll_N + KL * annealing * kl_N


def mean_loss(logits_STV, next_ST, target_ST, normalize, annealing):
    """Over tokens or over sequences; a row has one sequence of each weight."""
    losses = [edl(logits_STV[s, mine], next_ST[s, mine], annealing) for s, mine in enumerate(target_ST)]
    weights = WEIGHTS * (len(losses) // len(WEIGHTS))
    if normalize == "sequences":
        return sum(w * own.mean() for w, own in zip(weights, losses, strict=True)) / sum(weights)
    counts = [w * len(own) for w, own in zip(weights, losses, strict=True)]
    return sum(w * own.sum() for w, own in zip(weights, losses, strict=True)) / sum(counts)


def plain_curve(rows, kind, normalize, seed):
    tokenizer, model = load_tokenizer("tiny-gpt2"), load_model("tiny-gpt2", "text").train()
    untrained = load_model("tiny-gpt2", "text")
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    lengths = [tokenize_row(row, tokenizer, kind).length for row in rows]  # they decide which rows share a step
    steps = EPOCHS * -(-len(rows) // BATCH)
    curve = []
    for epoch in range(EPOCHS):
        for chosen, _ in plan_epoch(lengths, batch_size=BATCH, micro_batches=1, workers=1, rank=0, seed=seed * 100_003 + epoch):
            batch, done = [rows[i] for i in chosen], len(curve) / steps
            texts = [[row["chosen"], row["rejected"]] if kind == "pair" else [t["text"] for t in row["targets"]] for row in batch]
            pairs = [
                (encode_prompt(tokenizer, row["prompt"]), encode_target(tokenizer, text)[0])
                for row, written in zip(batch, texts, strict=True)
                for text in written
            ]
            ids_ST = pad_sequence([torch.tensor(prompt + target) for prompt, target in pairs], batch_first=True)
            seen_ST = pad_sequence([torch.ones(len(prompt + target)) for prompt, target in pairs], batch_first=True)
            spans = [torch.tensor([False] * len(prompt) + [True] * len(target)) for prompt, target in pairs]
            target_ST = pad_sequence(spans, batch_first=True)[:, 1:]
            logits_STV, next_ST = model(ids_ST, attention_mask=seen_ST).logits[:, :-1], ids_ST[:, 1:]
            if kind == "pair":
                with torch.no_grad():
                    before_STV = untrained(ids_ST, attention_mask=seen_ST).logits[:, :-1]
                policy_ST, reference_ST = (
                    logits.log_softmax(-1).gather(2, next_ST[:, :, None])[:, :, 0] for logits in (logits_STV, before_STV)
                )
                loss = cdpo(policy_ST, reference_ST, target_ST)
            else:
                loss = mean_loss(logits_STV, next_ST, target_ST, normalize, min(1.0, done / ANNEAL))
            optimizer.param_groups[0]["lr"] = RATE * (1 - done)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            curve.append(loss.item())
    return curve


def test_the_loss_curve_is_a_plain_loops(tmp_path):
    """And where sequences count alike, of a model whose checkpoint would drop much out."""
    dropping = load_model("tiny-gpt2", "text")
    dropping.config.update({"resid_pdrop": 0.5, "attn_pdrop": 0.5, "embd_pdrop": 0.5})
    dropping.save_pretrained(tmp_path / "dropping")
    load_tokenizer("tiny-gpt2").save_pretrained(tmp_path / "dropping")
    without = {"model": str(tmp_path / "dropping"), "dropout": "none"}
    kinds: tuple[RowKind, ...] = ("pair", "targets")
    rows = {kind: [training_row(i, hour, kind) for i, hour in enumerate(HOURS)] for kind in kinds}
    for kind, made in rows.items():
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    cases = {
        name: case(
            tmp_path / name, tmp_path / f"{kind}.jsonl", kind=kind, loss=loss, validation=tmp_path / "targets.jsonl",
            epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE, zero_stage=0, normalize=normalize,
            **(without if normalize == "sequences" else {}),
        )
        for name, (kind, loss, normalize) in CASES.items()
    }  # fmt: skip
    train_without_ray(list(cases.values()), workers=1)
    for name, (kind, _, normalize) in CASES.items():
        made = cases[name]
        plain = plain_curve(rows[kind], kind, normalize, made.job.seed)
        assert abs(plain[0] - plain[-1]) > 0.1, "it learns"
        assert made.curve() == pytest.approx(plain, abs=1e-4), name
    assert abs(cases["tokens"].curve()[0] - cases["sequences"].curve()[0]) > 0.01, "lengths differ"
    assert load_model_config(str(cases["sequences"].last / "model")).attn_pdrop == 0.5, "the next stage's to choose"
