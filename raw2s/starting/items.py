"""`raw2s export-items`: B for annotators, before anything runs."""

from pathlib import Path

from raw2s.config import RunConfig
from raw2s.errors import ConfigError
from raw2s.labels.to_fill_in import ANSWER, check_suffix, write_to_fill_in
from raw2s.tasks import draw_halves, task_of


def write_items_of_b(config: RunConfig, file: Path) -> tuple[int, str]:
    """Write every seed's B to the new `file`, each item once: an empty column for the answer, and the prompt as people read it.

    No ground truth is in it. The teachers' label files need not be there yet. Returns how many items they are, and the column to fill
    in. Raises ConfigError, in one line and before anything is written.
    """
    if file.exists():
        raise ConfigError(f"{file} is there already; give a new file")
    if not file.parent.is_dir():
        raise ConfigError(f"{file.parent}: no such folder; make it, or give another name")
    try:
        check_suffix(file)
        form = task_of(config.task).form
        prompts = {e["id"]: e["prompt"].strip() for seed in config.seeds for e in draw_halves(config.task, seed).student}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    write_to_fill_in(file, form, ((i, {"prompt": prompt}) for i, prompt in prompts.items()))
    return len(prompts), ANSWER[form]
