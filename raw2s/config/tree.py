"""What a run is: one typed tree. Every field is documented by the text under it; `--help` prints them all."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, model_validator

from raw2s.config.own import OWN, placed_at, put_over_section
from raw2s.config.training import PreferenceTrainingConfig, TeacherTrainingConfig, TrainingConfig
from raw2s.labels.targets import Score
from raw2s.methods import AnyMethod, AnyPreferenceLoss, MethodSection
from raw2s.models import Precision
from raw2s.section import Actors, Fraction, Placement, Positive, Section
from raw2s.storage import ARTIFACTS, Place, Uri, place
from raw2s.tasks import AnyTask
from raw2s.teachers import AnyTeacher, ModelSection


class Tolerance(Placement):
    """How much may be missing before a stage fails: whether something comes out, not what."""

    max_rejected_fraction: Fraction = 0.05
    """Share of the prompts that may be left out because a teacher cannot label them (too long, empty); over it the stage fails."""


class Decoding(Section):
    """How a model writes its answers. Beams and their length are None for classes, which have none."""

    beams: int | None = None
    max_new_tokens: int | None = None
    batch_size: int
    """Prompts in one unit of work."""


class LabelingConfig(Tolerance):
    beams: Positive = 5
    """M: beams a teacher keeps, and candidates it contributes, per prompt (section 4.1)."""
    max_new_tokens: Positive = 64
    """Longest answer, in the labeling model's own pieces, end marker included."""
    batch_size: Annotated[int, Field(gt=0, le=1000)] = 50
    """Prompts in one unit of labeling work, at most 1,000: what is lost, at most and per actor, when a run is killed."""
    precision: Precision = "auto"
    """Number format of the models that label, score and decode; auto: bf16 on GPUs, fp32 on CPUs. Sums and softmax are fp32."""
    calibrate: Literal["temperature"] | None = None
    """Classification: divide every model teacher's logits by a temperature fitted on devel; label files stay as they are."""


class WeightsConfig(Section):
    loss: Literal["devel", "uniform"] | list[float] = "uniform"
    """w_i of the multi-weak losses (Eq. 2, 4); `devel`: those of the smallest NLL of the truth on devel (model teachers)."""
    joint: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of joint decoding (Eq. 6)."""
    preference: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of the preference scores (Eq. 10, 11)."""


class PreferenceConfig(Section):
    beams: Positive = 10
    """The student's own beams per prompt, from which the pairs are made."""
    prompts: Positive | None = None
    """How many prompts of B the pairs are made from; null takes all."""
    score: Score = "mean_logprob"
    """What is weighed and summed over the teachers (Eq. 10, 11): mean_logprob, sum_logprob or prob."""
    loss: AnyPreferenceLoss = Field(default={}, validate_default=True)
    """Conservative DPO and its knobs."""
    training: PreferenceTrainingConfig = PreferenceTrainingConfig()
    """How the preference stage trains."""


class StudentConfig(Actors):
    model: str
    """A built-in model, a folder, or a Hugging Face hub id."""


class EvaluationConfig(Section):
    beams: Positive = 1
    """Beams at test time; 1 is greedy decoding. The authors use 3."""
    batch_size: Positive = 100
    """Prompts in one unit of evaluation work."""
    precision: Precision = "auto"
    """Number format of the models that are tested; auto: bf16 on GPUs, fp32 on CPUs."""
    resamples: Positive = 10_000
    """Bootstrap resamples of the test examples behind every interval and p-value; those of doubt are the first 1,000 of them."""
    doubt: bool = False
    """Ask every student how certain it is, and say how well that tells its errors: one more forward pass over the test examples."""
    dropout_passes: Annotated[int, Field(ge=0)] = 0
    """Forward passes with dropout on, over the test examples, for a student's doubt: 10 will do, 0 is none."""

    @model_validator(mode="after")
    def _enough_passes(self) -> "EvaluationConfig":
        if self.dropout_passes == 1:
            raise ValueError("dropout_passes: one pass cannot disagree with itself; give two or more, or 0")
        if self.dropout_passes and not self.doubt:
            raise ValueError("dropout_passes: it is one more measure of doubt, which nobody asks for; set evaluation.doubt: true")
        return self


class RayConfig(Section):
    num_cpus: Positive | None = None
    """Logical CPUs of the local Ray started here; null takes the machine's. Ignored where RAY_ADDRESS names a cluster."""
    object_store_mb: Annotated[int, Field(ge=80)] = 400
    """Shared memory of that local Ray, in MB."""
    parallel_stages: Positive = 3
    """Stages that may run side by side when nothing orders them."""


def _named_place(value: Any) -> Place:
    if not isinstance(value, str | Path | Uri):
        raise ValueError(f"a path is needed, not {value!r}; correct the value")
    return place(value)


Storage = Annotated[Place, PlainValidator(_named_place), PlainSerializer(str)]


class RunConfig(Section):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "run"
    """The run's folder under `storage`, and its name in MLflow."""
    storage: Storage = Path("runs")
    """Where runs and artifacts lie: a folder, on a cluster one that every node sees, or a URI such as s3://bucket/runs."""
    seeds: Annotated[list[int], Field(min_length=1)] = [1]
    """The whole pipeline runs once per seed; scores are means over them."""
    tracking: list[Literal["mlflow", "wandb"]] = ["mlflow"]
    """Where the run is logged beside its own folder, in no key: mlflow, wandb (an extra), both, or [] for none."""
    task: AnyTask = Field(default={}, validate_default=True)
    """What is learned, and from which data."""
    teachers: Annotated[list[AnyTeacher], Field(min_length=1)]
    """The weak labelers; adding one is adding an entry."""
    teacher_training: TeacherTrainingConfig = TeacherTrainingConfig()
    """How teachers learn from ground truth on A."""
    labeling: LabelingConfig = LabelingConfig()
    weights: WeightsConfig = WeightsConfig()
    student: StudentConfig
    """The strong model."""
    student_training: TrainingConfig = TrainingConfig()
    """How the student learns from weak labels on B."""
    ceiling_training: TrainingConfig | None = None
    """How the ceiling learns from ground truth on B; null takes student_training."""
    methods: Annotated[list[AnyMethod], Field(default=[{}], validate_default=True)]
    """The methods to compare; each entry is one trained student."""
    preference: PreferenceConfig = PreferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        names = [teacher.name for teacher in self.teachers]
        if self.name == ARTIFACTS:
            raise ValueError("name: artifacts is the artifact store's folder; choose another")
        if len(set(names)) < len(names):
            raise ValueError("teachers: two teachers have the same name; rename one")
        if "student" in names:  # the student's own actors are called so beside the teachers'
            raise ValueError("teachers: 'student' is the student's name; rename the teacher")
        if len(set(self.tracking)) < len(self.tracking):
            raise ValueError("tracking: a tracker occurs twice; remove one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed occurs twice; remove one")
        _check_weights("weights", self.weights, len(names))
        return self

    @model_validator(mode="after")
    def _entries_consistent(self) -> "RunConfig":
        for index, method in enumerate(self.methods):
            for own, shared in OWN.items():
                try:
                    put_over_section(getattr(self, shared), getattr(method, own))
                except ValidationError as error:
                    raise placed_at(error, "methods", index, own) from None
            if method.weights:
                _check_weights(f"methods.{index}.weights", self.of(method).weights, len(self.teachers))
        return self

    def of(self, method: MethodSection) -> "RunConfig":
        """The config as an entry of `methods` reads it: its own keys over the run's sections."""
        sections = {shared: put_over_section(getattr(self, shared), getattr(method, own)) for own, shared in OWN.items()}
        return self.model_copy(update=sections)

    @property
    def models(self) -> list[ModelSection]:
        """The teachers that are models."""
        return [teacher for teacher in self.teachers if isinstance(teacher, ModelSection)]

    def teacher_weights(self, use: Literal["loss", "joint", "preference"]) -> list[float]:
        """One weight a teacher, summing to one; `devel` leaves them to the run and counts as uniform here."""
        weights = getattr(self.weights, use)
        weights = [1.0] * len(self.teachers) if isinstance(weights, str) else weights
        return [w / sum(weights) for w in weights]


def _check_weights(key: str, section: WeightsConfig, teachers: int) -> None:
    for use in ("loss", "joint", "preference"):
        weights = getattr(section, use)
        if isinstance(weights, str):
            continue
        if len(weights) != teachers:
            raise ValueError(f"{key}.{use}: {len(weights)} weights for {teachers} teachers; give one each, or `uniform`")
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"{key}.{use}: {weights} holds a negative weight or sums to zero; give at least one above zero, none below"
            )
