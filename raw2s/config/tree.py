"""What a run is: one typed tree. Every field is documented by the text under it; `--help` prints them all."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from raw2s.section import Fraction, Positive, Rate, Section
from raw2s.config.training import PreferenceTrainingConfig, TeacherTrainingConfig, TrainingConfig


def _ordered(replicas: tuple[int, int]) -> tuple[int, int]:
    if replicas[0] > replicas[1]:
        raise ValueError(f"{list(replicas)}: more at least than at most; give the smaller number first")
    return replicas


Replicas = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


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


class TeacherConfig(Section):
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """What the teacher is called in tables and folders."""
    kind: Literal["model", "labels"] = "model"
    """A model that is fine-tuned on A and labels B, or a file that holds labels of B: people, rules, models run elsewhere."""
    model: Annotated[str, Field(validate_default=True)] = ""
    """Kind model: a built-in one (tiny-gpt2, tiny-opt, tiny-gpt-neox, tiny-llama), a folder, or a Hugging Face hub id."""
    file: Annotated[Path | None, Field(validate_default=True)] = None
    """Kind labels: a .jsonl, .csv or .parquet file with id and label, probabilities or text; see docs/labelling.md."""
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
    backend: Literal["torch", "ctranslate2"] = "torch"
    """What finds the teacher's beams: our own search, or CTranslate2 (GPT-2, OPT, GPT-NeoX, Llama; pip install "raw2s[ctranslate2]")."""

    @field_validator("model", "file")
    @classmethod
    def _goes_with_its_kind(cls, value: str | Path | None, info: ValidationInfo) -> str | Path | None:
        needed = info.data.get("kind") == {"model": "model", "file": "labels"}[str(info.field_name)]
        if needed and not value:
            other = "kind: labels for a file" if info.field_name == "model" else "kind: model for a model"
            raise ValueError(f"missing; add it to the config, or set {other}")
        if value and not needed:
            raise ValueError(f"a teacher of kind {info.data.get('kind')} has none; remove it, or change the kind")
        return value


class LabelingConfig(Section):
    beams: Positive = 5
    """M: beams a teacher keeps, and candidates it contributes, per prompt (section 4.1)."""
    max_new_tokens: Positive = 64
    """Longest answer, in the labelling model's own pieces, end marker included."""
    score: Literal["mean_logprob", "sum_logprob", "prob"] = "mean_logprob"
    """What joint decoding and preference weigh and sum over teachers (Eq. 6, 10, 11)."""
    batch_size: Annotated[int, Field(gt=0, le=1000)] = 50
    """Prompts in one unit of labelling work, at most 1,000: what is lost, at most and per actor, when a run is killed."""
    max_rejected_fraction: Fraction = 0.05
    """Share of the prompts that may be left out because a teacher cannot label them (too long, empty); over it the stage fails."""
    calibrate: Literal["temperature"] | None = None
    """Classification: divide every model teacher's logits by a temperature fitted on devel; label files stay as they are."""


class WeightsConfig(Section):
    loss: Literal["devel", "uniform"] | list[float] = "uniform"
    """w_i of the multi-weak losses (Eq. 2, 4); `devel`: those of the smallest NLL on devel (classification, model teachers)."""
    joint: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of joint decoding (Eq. 6)."""
    preference: Literal["uniform"] | list[float] = "uniform"
    """lambda_i of the preference scores (Eq. 10, 11)."""


class StudentConfig(Section):
    method: Literal["single", "naive", "joint", "bayesian", "majority", "dawid_skene", "mace"] = "bayesian"
    """One teacher's labels; all teachers' with CE (Eq. 2), by joint decoding (Eq. 6), with EDL (Eq. 4); crowd-kit's votes (classes)."""
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
    def is_crowd(self) -> bool:
        """Whether the labels are combined by crowd-kit before the student sees them."""
        return self.method in ("majority", "dawid_skene", "mace")

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
    """The weak labellers; adding one is adding an entry."""
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
            if isinstance(weights, str):
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
        for teacher in self.teachers:
            if teacher.backend == "ctranslate2" and (self.task.name == "slurp_scenario" or teacher.kind == "labels"):
                raise ValueError(f"teachers: backend ctranslate2 finds beams, and {teacher.name} has none to find; remove it")
        if self.task.prompt == "paper" and self.task.name == "slurp_scenario":
            raise ValueError("task.prompt: the paper's prompt is for slot filling; set task.prompt: short")
        return self

    @model_validator(mode="after")
    def _teachers_suffice(self) -> "RunConfig":
        """What needs a teacher that is a model, classes, or answers on devel, has them."""
        is_text, has_files = self.task.name == "slurp_slots", any(teacher.kind == "labels" for teacher in self.teachers)
        devel, calibrate = self.weights.loss == "devel", self.labeling.calibrate
        if is_text and (devel or calibrate):
            key = "weights.loss: devel" if devel else "labeling.calibrate"
            raise ValueError(f"{key} needs class probabilities; remove it or set task.name: slurp_scenario")
        if devel and has_files:
            raise ValueError("weights.loss: devel needs every teacher's labels of devel, and label files hold B's; give numbers")
        if calibrate and all(teacher.kind == "labels" for teacher in self.teachers):
            raise ValueError("labeling.calibrate: temperatures are fitted to models, and no teacher is one; remove it")
        no_scorer = "needs a teacher that scores; add a model with a weight above zero in "
        for index, student in enumerate(self.students):
            if is_text and student.is_crowd:
                raise ValueError(f"students.{index}.method: {student.method} combines classes; for text use joint or naive")
            if is_text and student.method == "joint" and not self._scorers("joint"):
                raise ValueError(f"students.{index}.method: joint {no_scorer}weights.joint")
            if is_text and student.cdpo and not self._scorers("preference"):
                raise ValueError(f"students.{index}.cdpo: preference {no_scorer}weights.preference")
        return self

    def _scorers(self, use: Literal["joint", "preference"]) -> list[str]:
        weighted = zip(self.teachers, self.teacher_weights(use), strict=True)
        return [teacher.name for teacher, weight in weighted if weight > 0 and teacher.kind == "model"]

    def teacher_weights(self, use: Literal["loss", "joint", "preference"]) -> list[float]:
        """One weight a teacher, summing to one; `devel` leaves them to the run and counts as uniform here."""
        weights = getattr(self.weights, use)
        weights = [1.0] * len(self.teachers) if isinstance(weights, str) else weights
        return [w / sum(weights) for w in weights]
