"""The model before and after training: with adapters put in or whole, and exported as a folder that anybody can load."""

from pathlib import Path
from typing import Any

import deepspeed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.config import LoraConfig
from raw2s.decoding.heads import output_head, require_plain_head
from raw2s.decoding.packing import packable
from raw2s.methods import loss_of
from raw2s.models.load import load_model, save_model
from raw2s.training.engine import full_state
from raw2s.training.job import Job

ADAPTER = "adapter"


def load_trainable(job: Job) -> PreTrainedModel:
    """The job's model, ready to be trained: whole, or frozen with low-rank adapters in it and, in a classifier, a free head.

    Raises ValueError for a recurrent architecture and for one whose head is not plain.
    """
    model = load_model(job.model, job.form, job.classes)
    require_plain_head(model.config)
    packable(model)  # raises for a recurrent one
    if job.training.lora is not None:
        from peft import inject_adapter_in_model  # an extra  # noqa: PLC0415

        inject_adapter_in_model(_peft_config(job.training.lora), model)  # in place
        if job.form == "classes":
            output_head(model).requires_grad_(True)
    return model


def export_model(
    engine: deepspeed.DeepSpeedEngine, tokenizer: PreTrainedTokenizerBase, job: Job, *, rank: int, folder: Path
) -> None:
    """A plain Hugging Face folder, written by rank 0; all ranks must call. Adapters are merged, and lie in `adapter/` too."""
    state = full_state(engine, rank)
    if rank != 0:
        return
    model = engine.module.model
    if job.training.lora is not None:
        from peft import get_peft_model  # noqa: PLC0415

        adapted = get_peft_model(load_model(job.model, job.form, job.classes), _peft_config(job.training.lora))
        adapted.base_model.model.load_state_dict(state)
        adapted.save_pretrained(folder / ADAPTER)
        model = adapted.merge_and_unload()
        state = model.state_dict()
    model.config.raw2s = {"task": job.task, "stage": job.name, "loss": job.loss.model_dump(mode="json")}
    save_model(model, tokenizer, folder, state)
    (folder / "README.md").write_text(_card(job), encoding="utf-8")


def _peft_config(lora: LoraConfig) -> Any:
    import peft  # noqa: PLC0415

    modules = lora.target_modules
    return peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules)


def _card(job: Job) -> str:
    how = loss_of(job.loss).card(job.loss)
    return (
        f"---\nlibrary_name: transformers\ntags: [raw2s, {job.task}]\n---\n\n# {job.name}\n\n"
        f"Trained by [raw2s] on the task `{job.task}` from `{Path(job.model).name}`: {how}, {job.training.epochs} epochs, "
        f"seed {job.seed}. All settings of the loss are in `config.json` under `raw2s`; the stage's `manifest.json` has the rest.\n\n"
        "[raw2s]: Bayesian WeakS-to-Strong, from text classification to generation\n"
    )
