"""Loading and saving Hugging Face models: built-in names, folders, hub ids; safetensors only, no remote code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import NewGELUActivation
from transformers.utils import logging

from raw2s.form import FormName
from raw2s.models import Precision
from raw2s.models.source import model_source


def quiet_transformers() -> None:
    """Its bars of models that load in a blink would bury our own; called once in every process of ours, never at import."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_model_config(name: str) -> PretrainedConfig:
    """Architecture and sizes only. Raises OSError when there is no such model."""
    return AutoConfig.from_pretrained(model_source(name), trust_remote_code=False)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Raises ValueError when it cannot be loaded."""
    with _naming(name):
        return AutoTokenizer.from_pretrained(model_source(name), use_fast=True, trust_remote_code=False)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """What cannot be loaded is named, in a ValueError: files that are missing or broken are so at every further try."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"model {name} cannot be loaded ({reason}); mend its files, or name another") from error


def inference_dtype(precision: Precision, cuda: bool) -> torch.dtype:
    """The type of the weights of a model that is not trained. Logits, softmax and sums over them are in fp32 whatever it is."""
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and cuda) else torch.float32


def own_dropout(config: PretrainedConfig) -> dict[str, float]:
    """All probabilities of dropping something in training, by their names in an architecture's config."""
    numbers = {name: value for name, value in config.to_dict().items() if "drop" in name and type(value) in (int, float)}
    return {name: float(value) for name, value in numbers.items()}


def load_model(name: str, form: FormName, classes: tuple[str, ...] = (), dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model, or the same trunk with a linear head over `classes` (section 5.1), in eval mode.

    A head that the checkpoint lacks is drawn from torch's global generator: seed it before. Raises ValueError for another form.
    """
    model, _ = load_weights(name, form, classes, dtype=dtype)
    return model


def load_weights(
    name: str,
    form: FormName,
    classes: tuple[str, ...],
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
    dropout: bool = True,
) -> tuple[PreTrainedModel, set[str]]:
    """`load_model`, straight onto a device, with the names of the weights that the checkpoint lacks; tied ones are none.

    Raises ValueError where a file is missing or broken. `dropout`: whether it is to have the checkpoint's own in training; without, it is in the model's config no more.
    """
    where: dict[str, Any] = {} if device is None else {"device_map": {"": device}}
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
        **where,
        **({} if dropout else dict.fromkeys(own_dropout(load_model_config(name)), 0.0)),
    }
    kind: Any
    if form == "text":
        kind = AutoModelForCausalLM
    elif form == "classes":
        kind, labels = AutoModelForSequenceClassification, dict(enumerate(classes))
        options |= {"num_labels": len(classes), "id2label": labels, "label2id": {label: i for i, label in labels.items()}}
    else:
        raise ValueError(f"form {form!r} is none of text and classes; give one of them")
    with _naming(name):
        model, found = kind.from_pretrained(model_source(name), **options)
    return model.eval(), set(found["missing_keys"])


def load_to_answer(
    name: str, form: FormName, classes: tuple[str, ...] = (), *, precision: Precision, cuda: bool
) -> tuple[PreTrainedModel, set[str]]:
    """A model that is asked and not trained, on its device, with the names of the weights that the checkpoint lacks."""
    model: Any
    model, missing = load_weights(name, form, classes, dtype=inference_dtype(precision, cuda))
    if cuda:  # a CPU gains little, and would compute other last digits than training does
        fuse_gelu(model)
        model.to("cuda")
    return model, missing


def fuse_gelu(model: PreTrainedModel) -> PreTrainedModel:
    """GPT-2's GELU as one kernel: Hugging Face writes the same function as eight passes over the widest activations of the model."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
    return model
