"""How a model trains: the sections of the config that go to the training loop."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raw2s.section import Fraction, LabelSelector, Placement, Positive, Rate, Section

TYPED_DEEPSPEED = {
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size, workers and micro_batch_size",
    "gradient_clipping": "max_grad_norm",
    "bf16": "precision and optimizer_states",
    "fp16": "precision",
    "optimizer": "optimizer, learning_rate and weight_decay",
    "scheduler": "schedule and warmup_fraction",
    "zero_optimization.stage": "zero_stage",
    "zero_optimization.offload_optimizer": "offload",
    "zero_optimization.offload_param": "offload",
}
"""DeepSpeed's settings that have a key of their own in `TrainingConfig`."""


Normalize = Literal["tokens", "sequences"]


class LoraConfig(Section):
    rank: Positive = 16
    """Rank of the update of every adapted matrix."""
    alpha: Positive = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the adapted modules, such as [q_proj, v_proj], none the output head; `all-linear` takes all linear layers but it."""


class Workers(Placement):
    """The Ray Train workers of a training run, where they keep what they hold, and how safely they run."""

    workers: Positive = 1
    """Ray Train workers, one process and (with gpus_per_worker) one GPU each."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    """Ray CPUs a worker reserves, and the threads it runs."""
    gpus_per_worker: Rate = 0
    """Ray GPUs a worker reserves."""
    label_selector: LabelSelector | None = None
    """Labels that the Ray nodes of the workers must have, such as {pool: train} or {ray.io/accelerator-type: H100}."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in host memory: nothing, the optimizer's state (zero_stage 1 or more), or the weights too (zero_stage 3)."""
    activation_checkpointing: Fraction = 0.0
    """Share of the layers (true: all) that are computed again in the backward pass: a third more work, far less memory."""
    compile: Literal["auto", "none", "layers"] = "auto"
    """Compile every decoder layer, seconds at the start and two fifths less time a step on a GPU; auto: on GPUs, below zero_stage 3."""
    checkpoint_every: Positive | None = 500
    """Optimizer steps between checkpoints from which an interrupted run resumes; null writes them at validations only."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often lost workers are replaced before the stage fails."""


class TrainingConfig(Workers):
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
    """DeepSpeed ZeRO stage: 1 splits the optimizer's state over the workers, 2 the gradients too, 3 the weights too; 0: fp32 only."""
    lora: LoraConfig | None = None
    """Train low-rank adapters only (extra `raw2s[lora]`); the kept model has them merged, `adapter/` beside it has them alone."""
    deepspeed: dict[str, Any] = {}
    """More of DeepSpeed's own settings, such as {zero_optimization: {reduce_bucket_size: 5.0e+8}}; none that has a key here."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the forward and backward pass; bf16 (zero_stage 1 or more) keeps fp32 master weights, see optimizer_states."""
    optimizer_states: Literal["fp32", "bf16"] = "fp32"
    """Master weights and moments; bf16: 12 bytes a parameter at the step for 22, but a step under 1/256 of its weight is lost."""
    dropout: Literal["checkpoint", "none"] = "checkpoint"
    """The model's own dropout while it trains: as its checkpoint says, or none; LoRA's has a key of its own."""
    normalize: Normalize = "tokens"
    """Text: what counts alike in a step's loss, every target token, or every target sequence by the mean over its tokens."""
    keep: Literal["best", "last"] = "last"
    """Which epoch's weights are kept: the best by `judge`, or the last."""
    judge: Literal["loss", "score"] = "loss"
    """What makes an epoch best: the lowest validation loss (ground truth), or the highest score, the task's metric of its answers."""
    judged_examples: Positive = 100
    """With judge: score on text, how many validation examples are decoded (greedily) at every epoch, always the same ones."""

    @property
    def compiles_layers(self) -> bool:
        """Not at stage 3, which gathers weights in hooks of every module that a compiled layer would not call."""
        return self.compile == "layers" or (self.compile == "auto" and self.gpus_per_worker > 0 and self.zero_stage < 3)

    @model_validator(mode="after")
    def _batch_divides(self) -> "TrainingConfig":
        if self.batch_size % (self.workers * self.micro_batch_size):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by workers x micro_batch_size = "
                f"{self.workers} x {self.micro_batch_size}; make it a multiple of {self.workers * self.micro_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _judges_to_choose(self) -> "TrainingConfig":
        if self.judge == "score" and self.keep == "last":
            raise ValueError("judge: score chooses an epoch, and keep: last chooses none; set keep: best, or judge: loss")
        return self

    @model_validator(mode="after")
    def _deepspeed_fits(self) -> "TrainingConfig":
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(f"offload {self.offload} needs zero_stage {needed} or more; raise zero_stage, or set offload: none")
        if self.precision == "bf16" and self.zero_stage == 0:
            # There DeepSpeed (0.19.8, FP16_UnfusedOptimizer) takes a step of Adam on zero gradients at the start, and it counts.
            raise ValueError(
                "precision: bf16 needs zero_stage 1 or more, for DeepSpeed's first steps are too small at 0; set zero_stage: 1, "
                "which keeps the same on one worker, or precision: fp32"
            )
        if self.compile == "layers" and self.zero_stage == 3:
            raise ValueError(
                "compile: layers does not go with zero_stage 3, which takes weights apart; lower it, or compile: auto"
            )
        if self.optimizer_states == "bf16" and (self.precision != "bf16" or self.offload != "none"):
            raise ValueError(
                "optimizer_states: bf16 goes with precision: bf16 and offload: none; set those, or optimizer_states: fp32"
            )
        for path, key in TYPED_DEEPSPEED.items():
            found: Any = self.deepspeed
            for name in path.split("."):
                found = found.get(name) if isinstance(found, dict) else None
            if found is not None:
                raise ValueError(f"deepspeed.{path} is set by {key}; remove it and set {key}")
        return self


class TeacherTrainingConfig(TrainingConfig):
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best by `judge`, or the last."""


class PreferenceTrainingConfig(TrainingConfig):
    epochs: Positive = 1
    """Passes over the pairs."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate."""
