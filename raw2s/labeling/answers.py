"""A model's own answers to prompts, by a pass over its actors."""

from collections.abc import Callable, Mapping
from functools import partial

from raw2s.config import Decoding
from raw2s.labeling.actors import BeamActor, ClassActor, NameActor
from raw2s.labeling.prompts import Teacher, prompt_units
from raw2s.labeling.units import Answered, Pool, PromptProgress, run_pass
from raw2s.labels.forms import FORMS
from raw2s.storage import Place
from raw2s.tasks import Task


def answers_of(
    pool: Pool,
    task: Task,
    prompts: Mapping[int, str],
    *,
    decoding: Decoding,
    folder: Place,
    progress: PromptProgress,
) -> Answered:
    """Top beams for text, class logits for classes, for every prompt, in units of work.

    Finished units lie in `folder` and are not answered again.
    """
    make: Callable[[], Teacher]
    if task.form == "text":
        assert decoding.beams is not None and decoding.max_new_tokens is not None, "text has beams"
        make = partial(BeamActor, pool, decoding.beams, decoding.max_new_tokens)
    elif pool.by_name:
        make = partial(NameActor, pool, task.classes)
    else:
        make = partial(ClassActor, pool, task.classes)
    units = prompt_units(list(prompts), list(prompts.values()), decoding.batch_size)
    return run_pass(make, units, pool, schema=FORMS[task.form].schema, folder=folder, progress=progress)
