"""A teacher that is a model: fine-tuned on A, or used as it is with a prompt and examples from A."""

from typing import Annotated, Literal

from pydantic import Field

from raw2s.models.source import model_fingerprint
from raw2s.section import Actors
from raw2s.teachers.teacher import TeacherKind, TeacherSection


class ModelSection(Actors, TeacherSection):
    model: str
    """A built-in model (tiny- or small- with gpt2, opt, gpt-neox, llama; small-qwen2, small-mistral), a folder, or a hub id."""
    fine_tune: bool = True
    """Fine-tune it on A; false uses the model as it is, with `instruction` and `shots`."""
    instruction: str = "{prompt}"
    """fine_tune: false: the text around every prompt, such as "Classify the sentence.\\n{prompt}"; {classes} is the list of classes."""
    shots: Annotated[int, Field(ge=0)] = 0
    """fine_tune: false: how many examples of A stand before every prompt, with their answers."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Overrides teacher_training.learning_rate for this teacher."""
    backend: Literal["torch", "ctranslate2"] = "torch"
    """What finds the teacher's beams: our own search, or CTranslate2 (GPT-2, OPT, GPT-NeoX, Llama; an extra)."""


def _fingerprint(section: ModelSection) -> str:
    return model_fingerprint(section.model)


MODEL = TeacherKind(section=ModelSection, fingerprint=_fingerprint, annotate=None)
