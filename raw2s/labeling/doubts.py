"""How certain a model was of its own answers, by a pass over its actors."""

from functools import partial

from raw2s.labeling.actors import DoubtActor
from raw2s.labeling.prompts import Unit
from raw2s.labeling.units import Answered, Pool, PromptProgress, run_pass
from raw2s.labels.table import DOUBTS
from raw2s.methods import LossSection
from raw2s.storage import Place


def doubts_of(pool: Pool, units: list[Unit], *, loss: LossSection | None, folder: Place, progress: PromptProgress) -> Answered:
    """`table.DOUBTS` of every prompt and its one candidate, the model's own answer; `loss` is what the model was trained with.

    Finished units lie in `folder` and are not forwarded again.
    """
    return run_pass(partial(DoubtActor, pool, loss), units, pool, schema=DOUBTS, folder=folder, progress=progress)
