"""What a run is: one typed tree. Every field is documented by the text under it; `--help` prints them all."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _ordered(replicas: tuple[int, int]) -> tuple[int, int]:
    if replicas[0] > replicas[1]:
        raise ValueError(f"{list(replicas)}: more at least than at most; give the smaller number first")
    return replicas


Replicas = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class TaskConfig(Section):
    name: Literal["slurp_slots", "slurp_scenario"] = "slurp_slots"
    """What is learned: slot filling as generation (SLU-F1), or scenario classification (accuracy, 18 classes)."""
    n_teacher: Positive = 2000
    """Utterances in A, on which the teachers learn from ground truth."""
    n_student: Positive = 2000
    """Utterances in B, which the teachers label and the student learns from."""
    n_validation: Positive | None = 400
    """Utterances of the official devel set used for choosing checkpoints; null takes all 2,033."""
    n_test: Positive | None = 1000
    """Utterances of the official test set, a fixed seeded choice; null evaluates on all 2,974."""
    draw_from: Literal["pool", "train"] = "pool"
    """Where A and B come from: the 4,000 train utterances unseen by the built-in models, or the whole train split."""
    prompt: Literal["short", "paper"] = "short"
    """The prompt: the bare utterance, or the paper's (App. F; slot filling only)."""


class TrainingConfig(Section):
    epochs: Positive = 3
    """Passes over the rows."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to zero after the warm-up."""
    warmup_fraction: Fraction = 0.0
    """Share of the steps over which the learning rate rises; the paper uses none."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """torch's Adam or AdamW."""
    weight_decay: Rate = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Rate = 1.0
    """Gradient clipping by global norm; 0 turns it off."""
    batch_size: Positive = 16
    """Prompts per optimizer step, over all workers. Must be divisible by workers x micro_batch_size."""
    micro_batch_size: Positive = 8
    """Prompts per forward pass of one worker, with all their targets; packed in rows with little padding, so more is faster."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the forward and backward pass; the master weights stay fp32."""
    workers: Positive = 1
    """Ray Train workers, one process and (with gpus_per_worker) one GPU each."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    """Ray CPUs a worker reserves, and the threads it runs."""
    gpus_per_worker: Rate = 0
    """Ray GPUs a worker reserves."""
    keep: Literal["best", "last"] = "last"
    """Which epoch's weights are kept: the lowest validation loss (ground truth), or the last."""

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainingConfig":
        if self.batch_size % (self.workers * self.micro_batch_size):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by workers x micro_batch_size = "
                f"{self.workers} x {self.micro_batch_size}; make it a multiple of {self.workers * self.micro_batch_size}"
            )
        return self


class TeacherTrainingConfig(TrainingConfig):
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the lowest validation loss (ground truth), or the last."""


class PreferenceTrainingConfig(TrainingConfig):
    epochs: Positive = 1
    """Passes over the pairs."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate."""


class TeacherConfig(Section):
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """What the teacher is called in tables and folders."""
    model: str
    """A built-in model (tiny-gpt2, tiny-opt, tiny-gpt-neox, tiny-llama), a folder, or a Hugging Face hub id."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Overrides teacher_training.learning_rate for this teacher."""
    replicas: Replicas = (1, 1)
    """Fewest and most Ray Data actors of this teacher while labelling."""
    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Ray CPUs of one such actor."""
    num_gpus: Rate = 0
    """Ray GPUs of one such actor; a fraction shares one."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Custom Ray resources of one such actor, such as {teaching: 1}."""
    label_selector: dict[str, str] | None = None
    """Ray node labels that the nodes of these actors must have, such as {pool: teach}."""


class LabelingConfig(Section):
    beams: Positive = 5
    """M: beams a teacher keeps, and candidates it contributes, per prompt (section 4.1)."""
    max_new_tokens: Positive = 64
    """Longest answer, in the labelling model's own pieces, end marker included."""
    score: Literal["mean_logprob", "sum_logprob", "prob"] = "mean_logprob"
    """What joint decoding and preference weigh and sum over teachers (Eq. 6, 10, 11)."""
    batch_size: Positive = 50
    """Prompts in one unit of labelling work: what is lost, at most and per actor, when a run is killed."""
    max_rejected_fraction: Fraction = 0.05
    """Share of the prompts that may be left out because a teacher cannot label them (too long, empty); over it the stage fails."""


class WeightsConfig(Section):
    loss: Literal["uniform"] | list[float] = "uniform"
    """w_i of the multi-weak losses (Eq. 2, 4)."""
    joint: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of joint decoding (Eq. 6)."""
    preference: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of the preference scores (Eq. 10, 11)."""


class StudentConfig(Section):
    method: Literal["single", "naive", "joint", "bayesian"] = "bayesian"
    """One teacher's labels; every teacher's with cross entropy (Eq. 2); joint decoding (Eq. 6); every teacher's with EDL (Eq. 4)."""
    teacher: str | None = None
    """The teacher of method `single`."""
    loss: Literal["ce", "edl"] | None = None
    """Overrides the method's loss: EDL for bayesian, cross entropy for the others."""
    confidence: bool = True
    """Soft labels from the teachers' confidence (section 4.2; class probabilities in classification); otherwise hard labels."""
    bridge: Literal["log", "eq8", "equal"] = "log"
    """How a word's probability is shared among the student's pieces (Eq. 7, 8)."""
    gamma_max: Fraction = 0.0
    """Largest weight of the auxiliary confidence loss (Eq. 1, 5); 0 turns it off."""
    gamma_schedule: Literal["linear", "authors"] = "linear"
    """How gamma grows; `authors` reproduces the jump of their code."""
    gamma_warmup_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the run over which gamma rises to gamma_max."""
    evidence: Literal["exp", "softplus", "relu"] = "exp"
    """EDL: evidence of the logits; alpha = evidence + 1."""
    form: Literal["expected", "soft"] = "expected"
    """EDL: the paper's Eq. 4, or the soft target put straight into the Dirichlet, as the authors' code does for tokens."""
    kl_weight: Rate = 1e-5
    """EDL: lambda_EDL, the weight of the regulariser (App. B)."""
    kl_clamp: Annotated[float, Field(gt=0)] | None = None
    """EDL: largest size of the regulariser of one token, before its weight."""
    kl_anneal_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """EDL: share of the run over which the regulariser's weight rises from 0."""
    logit_clamp: Annotated[float, Field(gt=0)] | None = None
    """EDL: logits are clamped to +- this before exp."""
    cdpo: bool = False
    """Follow with conservative DPO (section 4.3), set under `preference`; generation only."""

    @model_validator(mode="after")
    def _single_has_a_teacher(self) -> "StudentConfig":
        if (self.method == "single") != (self.teacher is not None):
            raise ValueError("`teacher` goes with method `single`, and with it only; set both or neither")
        return self

    @property
    def uses_edl(self) -> bool:
        return (self.loss or ("edl" if self.method == "bayesian" else "ce")) == "edl"

    @property
    def label(self) -> str:
        """`bayesian`, `single:gpt2`, `joint+edl`: the method as tables name it."""
        name = f"single:{self.teacher}" if self.method == "single" else self.method
        default = "edl" if self.method == "bayesian" else "ce"
        return name if self.loss in (None, default) else f"{name}+{self.loss}"


class PreferenceConfig(Section):
    beams: Positive = 10
    """The student's own beams per prompt, from which the pairs are made."""
    prompts: Positive | None = None
    """How many prompts of B the pairs are made from; null takes all."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """DPO's beta (Eq. 9); the paper uses 10 with a learning rate of 2e-7."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """epsilon of cDPO (Eq. 12); 0 is plain DPO."""
    training: PreferenceTrainingConfig = PreferenceTrainingConfig()
    """How the preference stage trains."""


class ModelConfig(Section):
    model: str
    """A built-in model, a folder, or a Hugging Face hub id."""
    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Ray CPUs of one actor that decodes with the student."""
    num_gpus: Rate = 0
    """Ray GPUs of one such actor."""
    replicas: Replicas = (1, 1)
    """Fewest and most such actors."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Custom Ray resources of one such actor, such as {decoding: 1}."""
    label_selector: dict[str, str] | None = None
    """Ray node labels that the nodes of these actors must have, such as {pool: decode}."""


class EvaluationConfig(Section):
    beams: Positive = 1
    """Beams at test time; 1 is greedy decoding. The authors use 3."""
    batch_size: Positive = 100
    """Prompts in one unit of evaluation work."""
    resamples: Positive = 1000
    """Bootstrap resamples of the test utterances behind every interval."""


class RayConfig(Section):
    num_cpus: Positive | None = None
    """Logical CPUs of the local Ray started here; null takes the machine's. Ignored where RAY_ADDRESS names a cluster."""
    object_store_mb: Annotated[int, Field(ge=80)] = 400
    """Shared memory of that local Ray, in MB."""
    parallel_stages: Positive = 3
    """Stages that may run side by side when nothing orders them."""


class RunConfig(Section):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "run"
    """The run's folder under `storage`, and its name in MLflow."""
    storage: Path = Path("runs")
    """Where runs and the artifact store lie; on a cluster, a path every node sees."""
    seeds: Annotated[list[int], Field(min_length=1)] = [1]
    """The whole pipeline runs once per seed; scores are means over them."""
    task: TaskConfig = TaskConfig()
    teachers: Annotated[list[TeacherConfig], Field(min_length=1)]
    """The weak models; adding one is adding an entry."""
    teacher_training: TeacherTrainingConfig = TeacherTrainingConfig()
    """How teachers learn from ground truth on A."""
    labeling: LabelingConfig = LabelingConfig()
    weights: WeightsConfig = WeightsConfig()
    student: ModelConfig
    """The strong model."""
    student_training: TrainingConfig = TrainingConfig()
    """How the student learns from weak labels on B."""
    ceiling_training: TrainingConfig | None = None
    """How the ceiling learns from ground truth on B; null takes student_training."""
    students: list[StudentConfig] = [StudentConfig()]
    """The methods to compare; each entry is one trained student."""
    preference: PreferenceConfig = PreferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        names = [teacher.name for teacher in self.teachers]
        if self.name == "artifacts":
            raise ValueError("name: artifacts is the artifact store's folder; choose another")
        if len(set(names)) < len(names):
            raise ValueError("teachers: two teachers have the same name; rename one")
        if "student" in names:  # the student's own actors are called so beside the teachers'
            raise ValueError("teachers: 'student' is the student's name; rename the teacher")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed occurs twice; remove one")
        for use in ("loss", "joint", "preference"):
            weights = getattr(self.weights, use)
            if weights == "uniform":
                continue
            if len(weights) != len(names):
                raise ValueError(f"weights.{use}: {len(weights)} weights for {len(names)} teachers; give one each, or `uniform`")
            if min(weights) < 0 or sum(weights) <= 0:
                raise ValueError(
                    f"weights.{use}: {weights} holds a negative weight or sums to zero; give at least one above zero, none below"
                )
        for student in self.students:
            if student.teacher and student.teacher not in names:
                raise ValueError(f"students: no teacher is called {student.teacher!r}; name one of {', '.join(names)}")
            if student.cdpo and self.task.name == "slurp_scenario":
                raise ValueError("students: cdpo needs a generation task; remove it or set task.name: slurp_slots")
        if self.task.prompt == "paper" and self.task.name == "slurp_scenario":
            raise ValueError("task.prompt: the paper's prompt is for slot filling; set task.prompt: short")
        return self

    def teacher_weights(self, use: Literal["loss", "joint", "preference"]) -> list[float]:
        """One weight a teacher, summing to one."""
        weights = getattr(self.weights, use)
        weights = [1.0] * len(self.teachers) if weights == "uniform" else weights
        return [w / sum(weights) for w in weights]
