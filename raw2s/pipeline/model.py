"""The stages that a model comes out of, as those that ask it for something see them."""

import json
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from raw2s.models.source import model_source
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Example, Task


@dataclass(frozen=True, kw_only=True)
class Model(Stage):
    """A stage whose artifact is a model, or says where one lies."""

    task: Task

    @abstractmethod
    def source(self, folder: Path) -> str:
        """The model's folder or hub id, from the artifact's folder."""

    def asked(self, folder: Path, prompts: Mapping[int, str]) -> dict[int, str]:
        """The prompts as this model is asked them."""
        return dict(prompts)

    @property
    def scores_classes(self) -> bool:
        """Whether it says how likely a class is by the likelihood of its name, for want of a classifier's head."""
        return False


@dataclass(frozen=True, kw_only=True)
class AsItIs(Model):
    """A model that nobody trains, asked through an instruction and with examples of A before every prompt."""

    kind: ClassVar[str] = "as-it-is"
    split: Examples
    pretrained: str
    fingerprint: str
    instruction: str
    shots: int
    seed: int

    _FILE: ClassVar[str] = "prompt.json"

    def run(self, work: Work) -> Metrics:
        examples = self.split.read(work.folder(self.split), "teacher")
        (work.out / self._FILE).write_text(json.dumps({"before": self.before(examples)}) + "\n", encoding="utf-8")
        return {"shots": self.shots}

    def before(self, examples: Sequence[Example]) -> str:
        """What stands before every prompt: drawn examples of A with their answers."""
        chosen = random.Random(self.seed).sample(examples, self.shots)
        return "".join(f"{self._instructed(example['prompt'])}{example['target']}\n\n" for example in chosen)

    def around(self, before: str, prompt: str) -> str:
        """A prompt as the model is asked it."""
        return before + self._instructed(prompt)

    def source(self, folder: Path) -> str:
        return model_source(self.pretrained)

    def asked(self, folder: Path, prompts: Mapping[int, str]) -> dict[int, str]:
        before: str = json.loads((folder / self._FILE).read_text(encoding="utf-8"))["before"]
        return {i: self.around(before, prompt) for i, prompt in prompts.items()}

    @property
    def scores_classes(self) -> bool:
        return self.task.form == "classes"

    def _instructed(self, prompt: str) -> str:
        return self.instruction.replace("{classes}", ", ".join(self.task.classes)).replace("{prompt}", prompt)
