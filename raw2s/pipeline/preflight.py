"""What can be checked of a config before anything starts: that its data, models and label files exist and fit each other."""

import heapq
import os
import tempfile
import uuid
from collections.abc import Mapping
from importlib.util import find_spec

import pyarrow as pa

from raw2s.config import RunConfig
from raw2s.decoding.heads import output_head
from raw2s.decoding.tokens import check_context, encode_prompt, positions_of
from raw2s.errors import ConfigError
from raw2s.methods import method_of
from raw2s.models.load import load_model_config, load_tokenizer
from raw2s.models.source import model_source
from raw2s.models.tiny import builtin_refusal
from raw2s.models.whole import model_problem
from raw2s.pipeline.ray_address import check_ray_address
from raw2s.pipeline.rules import check_rules, trainings_of, trainings_on_b
from raw2s.sizing.model import meta_model
from raw2s.storage import Place, Uri
from raw2s.storage.files import read, reason, remove, write
from raw2s.tasks import Halves, Task, draw_halves, task_of
from raw2s.teachers import Asked, ModelSection, teacher_kind

CPU_PARAMETERS = 10**9
"""Of a model that may be trained in fp32 without a GPU; with a larger one, keys were left out."""
LONGEST = 50
"""Test examples whose tokens are counted."""
LEAST_BYTES = 2**20
"""That the storage must take: a run's first files are as large."""
AROUND = 2
"""Tokens that a tokenizer may put around a prompt."""
CTRANSLATE2_MODELS = ("gpt2", "opt", "gpt_neox", "llama")


def check(config: RunConfig) -> None:
    """Raise ConfigError, naming the key and what to do, for what the types cannot show."""
    models = {f"teachers.{i}.model": t.model for i, t in enumerate(config.teachers) if t in config.models}
    models["student.model"] = config.student.model
    for key, model in models.items():
        if refusal := model_problem(model) or builtin_refusal(config.task, model_source(model)):
            raise ConfigError(f"{key}: {refusal}")
    try:
        task = task_of(config.task)
        halves = {seed: draw_halves(config.task, seed) for seed in config.seeds}
        task.held_out("validation")
        task.held_out("test")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    check_rules(config, task)
    for key, model in models.items():
        _check_model_fits(config, task, key, model)
        if task.chat and load_tokenizer(model).chat_template is None:
            raise ConfigError(f"{key}: {model} has no chat template; name a model made for chat, or set task.chat: false")
        _check_test_fits(config, task, key, model)
    _check_packages(config)
    _check_trainable(config)
    if task.form == "text":
        _check_adapters(config)
    _check_sizes(config, next(iter(halves.values())))
    _check_given(config, task, halves)


def check_surroundings(config: RunConfig) -> None:
    """Raise ConfigError where the cluster that RAY_ADDRESS names does not answer, or the storage cannot be written."""
    check_ray_address(os.environ.get("RAY_ADDRESS"))
    check_storage(config.storage)


def check_storage(storage: Place) -> None:
    """Raise ConfigError where it is no folder that can be made and written, or no store that takes an object and gives it back."""
    if isinstance(storage, Uri):
        _check_store(storage)
        return
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage) as file:
            file.write(bytes(LEAST_BYTES))
    except OSError as error:
        raise ConfigError(f"storage: {storage} is no folder that can be written ({error.strerror}); name another") from None


def _check_store(storage: Uri) -> None:
    """pyarrow tries for six seconds to reach one that does not answer."""
    probe, content = storage / f".probe-{uuid.uuid4().hex}", b"raw2s"
    try:
        write(probe, content)
        given = read(probe)
        remove(probe)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(
            f"storage: {storage} cannot be written and read ({reason(error)}); correct the bucket, or the credentials and the "
            "endpoint in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like)"
        ) from None
    if given != content:
        raise ConfigError(f"storage: {storage} does not give back what was just written; name a store that does")


def _check_packages(config: RunConfig) -> None:
    if "wandb" in config.tracking and find_spec("wandb") is None:
        raise ConfigError("tracking: the package wandb is not installed; run pip install wandb, or remove it")
    for _, _, use, training in trainings_of(config):
        if training.lora is not None and find_spec("peft") is None:
            raise ConfigError(f"{use}.lora: the package peft is not installed; run pip install peft, or remove the key")
    for i, teacher in enumerate(config.teachers):
        if isinstance(teacher, ModelSection) and teacher.backend == "ctranslate2":
            _check_ctranslate2(f"teachers.{i}.backend", teacher.model)
    for i, method in enumerate(config.methods):
        if method_of(method).crowd is not None and find_spec("crowdkit") is None:
            raise ConfigError(f"methods.{i}.method: {method.method} needs crowd-kit; run pip install crowd-kit")


def _check_trainable(config: RunConfig) -> None:
    """No large model is trained in fp32 on a CPU because keys were left out."""
    for _, section, use, training in trainings_of(config):
        if training.gpus_per_worker > 0 or training.precision == "bf16":
            continue
        parameters = meta_model(load_model_config(section.model)).num_parameters()
        if parameters > CPU_PARAMETERS:
            raise ConfigError(
                f"{use}.gpus_per_worker: {section.model} has {parameters / 1e9:.1f} billion parameters and would be trained in fp32 "
                f"without a GPU; set {use}.gpus_per_worker: 1 and {use}.precision: bf16"
            )


def _check_adapters(config: RunConfig) -> None:
    """No adapter stands beside the output head's weight: the fused losses read that alone, and a tied one is saved once."""
    for _, section, use, training in trainings_of(config):
        if training.lora is None or training.lora.target_modules == "all-linear":
            continue
        model = meta_model(load_model_config(section.model))
        weight = output_head(model).weight
        holders = [name.split(".") for name, module in model.named_modules() if getattr(module, "weight", None) is weight]
        for named in training.lora.target_modules:
            if any(holder[-len(parts) :] == parts for holder in holders for parts in [named.split(".")]):
                raise ConfigError(
                    f"{use}.lora.target_modules: {named} holds the weight of {section.model}'s output head, which takes no adapter; "
                    "name other modules, or all-linear"
                )


def _check_sizes(config: RunConfig, halves: Halves) -> None:
    rows = len(halves.student)
    for use, training in trainings_on_b(config):
        if training.batch_size > rows:
            raise ConfigError(f"{use}.batch_size: {training.batch_size} is more than the {rows} rows of B; lower it")
    batch_size, rows = config.teacher_training.batch_size, len(halves.teacher)
    fine_tuned = [teacher for teacher in config.models if teacher.fine_tune]
    if fine_tuned and batch_size > rows:
        raise ConfigError(f"teacher_training.batch_size: {batch_size} is more than the {rows} rows of A; lower it")
    for i, teacher in enumerate(config.teachers):
        if isinstance(teacher, ModelSection) and teacher.shots > rows:
            raise ConfigError(f"teachers.{i}.shots: {teacher.shots} are more than the {rows} rows of A; lower it")


def _check_given(config: RunConfig, task: Task, halves: Mapping[int, Halves]) -> None:
    """Every label that needs no model, and that each seed's B has some of them."""
    for i, teacher in enumerate(config.teachers):
        kind = teacher_kind(teacher)
        if kind.annotate is None:
            continue
        for seed, drawn in halves.items():
            asked = Asked(prompts={example["id"]: example["prompt"] for example in drawn.student}, task=task)
            try:
                ids = {annotation.id for annotation in kind.annotate(teacher, asked)}
            except ValueError as error:
                raise ConfigError(f"teachers.{i}: {error}") from None
            if not ids & asked.prompts.keys():
                raise ConfigError(
                    f"teachers.{i}: {teacher.name} labels none of the items of B (seed {seed}); use the ids that "
                    "`raw2s export-items CONFIG FILE` writes"
                )


def _check_ctranslate2(key: str, model: str) -> None:
    kind = load_model_config(model).model_type
    if kind not in CTRANSLATE2_MODELS:
        raise ConfigError(f"{key}: ctranslate2 is for {', '.join(CTRANSLATE2_MODELS)}, and {model} is {kind}; set backend: torch")
    if find_spec("ctranslate2") is None:
        raise ConfigError(f"{key}: the package ctranslate2 is not installed; run pip install ctranslate2, or set backend: torch")


def _check_test_fits(config: RunConfig, task: Task, key: str, model: str) -> None:
    """The longest test examples fit the model's positions, with an answer after them: a test leaves none out."""
    sizes, new = load_model_config(model), config.labeling.max_new_tokens if task.form == "text" else 0
    positions = positions_of(sizes)
    for example in heapq.nlargest(LONGEST, task.held_out("test"), key=lambda example: len(example["prompt"])):
        if positions is None or (not task.chat and len(example["prompt"].encode()) + new + AROUND <= positions):
            continue  # no token is less than a byte
        try:
            tokens = len(encode_prompt(load_tokenizer(model), example["prompt"], chat=task.chat)) + new
            check_context(sizes, tokens, f"test example {example['id']} with {new} new tokens")
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None


def _check_model_fits(config: RunConfig, task: Task, key: str, model: str) -> None:
    if task.form == "classes":
        return
    sizes = load_model_config(model).get_text_config()
    used = {"evaluation": config.evaluation.beams}
    if key.startswith("teachers"):
        used["labeling"] = config.labeling.beams
    else:
        for i, method in enumerate(config.methods):
            if method.cdpo:
                name = f"methods.{i}.preference" if "beams" in method.preference else "preference"
                used[name] = config.of(method).preference.beams
    for name, beams in used.items():
        if beams > sizes.vocab_size:
            raise ConfigError(f"{name}.beams: {beams} beams are more than the {sizes.vocab_size} pieces of {model}; lower it")
    positions = positions_of(sizes)
    if positions is not None and config.labeling.max_new_tokens >= positions:
        raise ConfigError(
            f"labeling.max_new_tokens: {config.labeling.max_new_tokens} leaves no room for a prompt in the {positions} "
            f"positions of {model}; lower it"
        )
