"""What a stage's texts come to in a model's tokens, from a sample of the run's own examples: no label is there yet.

Where a teacher's text is not known, an example of A lends its answer: as long as what the teachers learn to write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from raw2s.decoding.bridge import words
from raw2s.decoding.packing import Layout, pack_rows, separate_texts
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.forms import FORMS
from raw2s.labels.rows import TrainingRow
from raw2s.labels.table import CandidateRow
from raw2s.labels.targets import Labeled
from raw2s.methods import method_of
from raw2s.methods.method import MethodSection
from raw2s.sizing.training import MicroBatch
from raw2s.tasks import Example, Task
from raw2s.training.batching import TokenRow, plan_epoch

SAMPLE = 256
"""Examples that stand for all of them, evenly spaced."""


def sample(examples: Sequence[Example]) -> list[Example]:
    return list(examples[:: -(-len(examples) // SAMPLE)])


@dataclass(frozen=True, kw_only=True)
class TrainingTokens:
    """Of an epoch's rows; `largest` is the micro-batch of the most cells."""

    tokens: float
    targets: float
    largest: MicroBatch


def training_tokens(
    sampled: Sequence[TokenRow], *, count: int, micro_batch_size: int, hidden_size: int, layout: Layout
) -> TrainingTokens:
    """Of `count` rows such as these, in micro-batches packed as training packs them."""
    lengths = [row.length for row in sampled]
    size = min(micro_batch_size, count)
    tokenized = [sampled[i % len(sampled)] for i in range(max(len(sampled), size))]  # fewer may be sampled than a micro-batch has
    plan = plan_epoch([row.length for row in tokenized], batch_size=size, micro_batches=1, workers=1, rank=0, seed=0)
    packed = [_packed([tokenized[i] for i in share], hidden_size, layout) for _, (share,) in plan]
    return TrainingTokens(
        tokens=count * sum(lengths) / len(lengths),
        targets=count * sum(map(_targets, sampled)) / len(sampled),
        largest=max(packed, key=lambda batch: (batch.cells, batch.targets)),
    )


def _targets(row: TokenRow) -> int:
    """Positions at which the head runs: a classifier's last token."""
    return sum(len(nodes) for nodes in row.tree.predictors) or 1


def _packed(rows: Sequence[TokenRow], hidden_size: int, layout: Layout) -> MicroBatch:
    trees = [row.tree for row in rows]
    if layout == "one_text_a_row":
        trees = [text for tree in trees for text in separate_texts(tree)]
    packed, _ = pack_rows(trees, padding=0, hidden_size=hidden_size, layout=layout)
    rows_, width = packed.input_ids_RT.shape
    return MicroBatch(rows=rows_, width=width, targets=sum(map(_targets, rows)))


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Of prompts and the answers to them: means, and the longest."""

    prompt: float
    longest_prompt: int
    answer: float
    longest_answer: int


def text_tokens(
    prompts: Sequence[str], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, chat: bool, most: int | None
) -> TextTokens:
    """`most`: where an answer is cut off; None where answers are classes."""
    lengths = [len(encode_prompt(tokenizer, prompt, chat=chat)) for prompt in prompts]
    written = [0] if most is None else [min(most, len(encode_target(tokenizer, text)[0])) for text in answers]
    return TextTokens(
        prompt=sum(lengths) / len(lengths),
        longest_prompt=max(lengths),
        answer=sum(written) / len(written),
        longest_answer=max(written),
    )


def truth_rows(examples: Sequence[Example], task: Task) -> list[TrainingRow]:
    """Ground truth as training rows."""
    return [FORMS[task.form].learned(example, task) for example in sample(examples)]


def student_rows(
    method: MethodSection, weights: Mapping[str, float], b: Sequence[Example], a: Sequence[Example], task: Task
) -> list[TrainingRow]:
    """The rows that a method makes of B, every teacher's text another answer of A."""
    examples = sample(b)
    if task.form == "classes":
        share = [1 / len(task.classes)] * len(task.classes)
        return [TrainingRow(id=e["id"], prompt=e["prompt"], probabilities=share) for e in examples]
    names = list(weights)
    table = [
        _candidate(example["id"], place, names, a[(i + place) % len(a)])
        for i, example in enumerate(examples)
        for place in range(len(names))
    ]
    labeled = Labeled(
        prompts={example["id"]: example["prompt"] for example in examples},
        table=table,
        weights=list(weights.values()),
        teachers=names,
    )
    make = method_of(method).from_text
    assert make is not None, "the plan was checked: the method takes texts"
    return make(labeled, method)


def _candidate(i: int, place: int, names: Sequence[str], lent: Example) -> CandidateRow:
    text = str(lent["target"])
    scored = [[-1.0] * (len(words(text)) + 1) for _ in names]
    ranks = [0 if teacher == place else -1 for teacher in range(len(names))]
    return CandidateRow(id=i, candidate=place, text=text, rank=ranks, tokens=[len(own) for own in scored], words=list(scored))


def pair_rows(prompts: Sequence[Example], a: Sequence[Example]) -> list[TrainingRow]:
    """Preference pairs, both texts answers of A."""
    return [
        TrainingRow(
            id=example["id"],
            prompt=example["prompt"],
            chosen=str(a[i % len(a)]["target"]),
            rejected=str(a[(i + 1) % len(a)]["target"]),
            margin=0.0,
        )
        for i, example in enumerate(sample(prompts))
    ]
