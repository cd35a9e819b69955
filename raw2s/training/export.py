"""The trained model as a folder that anybody can load."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import deepspeed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.methods import loss_of
from raw2s.models.load import load_model_config, own_dropout
from raw2s.training.job import Job
from raw2s.training.shards import ADAPTER, adapter_weights, merged_weights, write_weights


def export_model(
    engine: deepspeed.DeepSpeedEngine, tokenizer: PreTrainedTokenizerBase, job: Job, *, rank: int, folder: Path
) -> None:
    """A plain Hugging Face folder, written by rank 0; all ranks must call. Adapters are merged, and lie in `adapter/` too.

    The weights have the type in which they were trained; DeepSpeed's fp32 master weights are not in it.
    """
    model: PreTrainedModel = engine.module.model
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(engine, merged_weights(model), folder, rank=rank)
    if job.training.lora is not None:
        _export_adapter(engine, folder / "adapter", rank)
    if rank == 0:
        config = deepcopy(model.config)
        config.raw2s = {"task": job.task, "stage": job.name, "loss": job.loss.model_dump(mode="json")}
        config.architectures = [type(model).__name__]
        config.dtype = str(model.dtype).removeprefix("torch.")
        config.update(own_dropout(load_model_config(job.model)))  # training without it is no change of the model
        config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(_card(job), encoding="utf-8")


def _export_adapter(engine: deepspeed.DeepSpeedEngine, folder: Path, rank: int) -> None:
    """The adapters as peft loads them."""
    model = engine.module.model
    folder.mkdir(exist_ok=True)
    write_weights(engine, adapter_weights(model), folder, rank=rank, name="adapter_model")
    if rank == 0:
        lora = replace(model.peft_config[ADAPTER], base_model_name_or_path=model.name_or_path, inference_mode=True)
        lora.save_pretrained(folder)


def _card(job: Job) -> str:
    how = loss_of(job.loss).card(job.loss)
    return (
        f"---\nlibrary_name: transformers\ntags: [raw2s, {job.task}]\n---\n\n# {job.name}\n\n"
        f"Trained by [raw2s] on the task `{job.task}` from `{Path(job.model).name}`: {how}, {job.training.epochs} epochs, "
        f"seed {job.seed}. All settings of the loss are in `config.json` under `raw2s`; the stage's `manifest.json` has the rest.\n\n"
        "[raw2s]: Bayesian WeakS-to-Strong, from text classification to generation\n"
    )
