"""The stage that labels, and all that it needs, without training: for benchmarks that run it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raw2s.config import Decoding, Tolerance
from raw2s.models.source import model_source
from raw2s.pipeline.answer_stages import Answers, Labeler
from raw2s.pipeline.data_stages import Drawn, Examples
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import Model
from raw2s.pipeline.stage import Metrics, Work
from raw2s.section import Actors
from raw2s.tasks import Example, Task


@dataclass(frozen=True, kw_only=True)
class Builtin(Model):
    """A built-in model as it is: no stage makes it."""

    kind: ClassVar[str] = "builtin"
    pretrained: str

    def run(self, work: Work) -> Metrics:
        return {}

    def source(self, folder: Path) -> str:
        return model_source(self.pretrained)


def labeling(task: Task, examples: Sequence[Example], models: Mapping[str, str], *, actors: Actors, decoding: Decoding) -> Label:
    """The label stage of teachers that are built-in models as they are; `models` by the teachers' names."""
    split = Examples(name="split", drawn=Drawn({"student": list(examples)}))
    labelers = {
        name: Labeler(name=name, model=Builtin(name=model, task=task, pretrained=model), precision="fp32", actors=actors)
        for name, model in models.items()
    }
    answers = {
        name: Answers(
            name=f"beams/{name}",
            examples=split,
            part="student",
            labeler=labeler,
            converted=None,
            task=task,
            decoding=decoding,
            tolerance=Tolerance(),
        )
        for name, labeler in labelers.items()
    }
    return Label(
        name="label",
        split=split,
        answers=answers,
        scorers=labelers,
        task=task,
        batch_size=decoding.batch_size,
        tolerance=Tolerance(),
    )
