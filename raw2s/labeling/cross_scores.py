"""Cross-scoring (section 4.1, Eq. 6): every teacher that is a model scores the candidates of all."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from raw2s.labeling.actors import ScoreActor
from raw2s.labeling.prompts import prompt_units
from raw2s.labeling.units import Answered, Pool, PromptProgress, run_pass
from raw2s.labels.table import SCORES, ScoreRow, row_by_id
from raw2s.storage import Place

Known = Mapping[tuple[int, str], ScoreRow]
"""Scores that a teacher gave before, by id and text."""


@dataclass(frozen=True)
class Scores:
    """One teacher's scores: `of(id)` gives {"words", "tokens"} for each of the id's candidates, in order."""

    of: Callable[[int], list[ScoreRow]]
    answered: Answered


def cross_score(
    asked: Sequence[tuple[Pool, Mapping[int, str]]],
    candidates: Mapping[int, list[str]],
    *,
    known: Mapping[str, Known],
    batch_size: int,
    folder: Place,
    progress: PromptProgress,
) -> dict[str, Scores]:
    """By teacher's name, from each one's actors and the prompts as it is asked them.

    All teachers side by side; a text in `known[name]` is not scored again.
    """

    def score(one: tuple[Pool, Mapping[int, str]]) -> Scores:
        pool, prompts = one
        before = known.get(pool.name, {})
        new = {i: [text for text in candidates[i] if (i, text) not in before] for i in prompts}
        ids = [i for i in prompts if new[i]]
        if old := len(prompts) - len(ids):
            progress.add(old, f"{pool.name}: {old} known")
        units = prompt_units(ids, [prompts[i] for i in ids], batch_size, new)
        answered = run_pass(
            partial(ScoreActor, pool), units, pool, schema=SCORES, folder=folder / f"scores-{pool.name}", progress=progress
        )
        row = row_by_id(answered.answers)

        def of(i: int) -> list[ScoreRow]:
            scored = row(i) if new[i] else {"words": [], "tokens": []}
            pairs = zip(scored["words"], scored["tokens"], strict=True)
            fresh = {text: ScoreRow(words=words, tokens=tokens) for text, (words, tokens) in zip(new[i], pairs, strict=True)}
            return [fresh[text] if text in fresh else before[i, text] for text in candidates[i]]

        return Scores(of, answered)

    if not asked:
        return {}
    with ThreadPoolExecutor(len(asked)) as threads:
        return dict(zip([pool.name for pool, _ in asked], threads.map(score, asked), strict=True))
