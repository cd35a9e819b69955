"""How certain a model was of its own answers, by a pass over its actors."""

from collections.abc import Mapping
from functools import partial

from raw2s.labeling.actors import DoubtActor
from raw2s.labeling.prompts import prompt_units
from raw2s.labeling.units import Answered, Pool, PromptProgress, run_pass
from raw2s.labels.table import DOUBTS
from raw2s.methods import LossSection
from raw2s.storage import Place


def doubts_of(
    pool: Pool,
    prompts: Mapping[int, str],
    answers: Mapping[int, str],
    *,
    loss: LossSection | None,
    batch_size: int,
    folder: Place,
    progress: PromptProgress,
) -> Answered:
    """`table.DOUBTS` of every prompt and the model's own answer to it; `loss` is what the model was trained with.

    Finished units lie in `folder` and are not forwarded again.
    """
    units = prompt_units(list(prompts), list(prompts.values()), batch_size, {i: [answers[i]] for i in prompts})
    return run_pass(partial(DoubtActor, pool, loss), units, pool, schema=DOUBTS, folder=folder, progress=progress)
