"""What can be checked of a config before anything starts: that its models and label files exist and fit the task."""

from importlib.util import find_spec
from pathlib import Path

from raw2s.config import RunConfig
from raw2s.errors import ConfigError
from raw2s.labeling.label_files import read_label_file
from raw2s.models.load import TINY_FOLDER, load_model_config, model_source
from raw2s.tasks import get_task
from raw2s.tasks.slurp import draw_slurp, held_out_slurp

CTRANSLATE2_MODELS = ("gpt2", "opt", "gpt_neox", "llama")


def check(config: RunConfig) -> None:
    """Raise ConfigError, naming the key and what to do, for what the types cannot show."""
    models = {f"teachers.{i}.model": teacher.model for i, teacher in enumerate(config.teachers) if teacher.kind == "model"} | {
        "student.model": config.student.model
    }
    for key, model in models.items():
        _check_model(config, key, model)
    trainings = {use: getattr(config, use) for use in ("teacher_training", "student_training", "ceiling_training")}
    for use, training in {**trainings, "preference.training": config.preference.training}.items():
        if training is not None and training.lora is not None and find_spec("peft") is None:
            raise ConfigError(f"{use}.lora: the package peft is not installed; run pip install 'raw2s[lora]', or remove the key")
    for i, teacher in enumerate(config.teachers):
        if teacher.backend == "ctranslate2":
            _check_ctranslate2(f"teachers.{i}.backend", teacher.model)
    task = config.task
    try:
        draw_slurp(task.draw_from, task.n_teacher, task.n_student, seed=0)
        held_out_slurp("validation", task.n_validation)
        held_out_slurp("test", task.n_test)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for use in ("student_training", "ceiling_training"):
        training = getattr(config, use)
        if training is not None and training.batch_size > task.n_student:
            raise ConfigError(f"{use}.batch_size: {training.batch_size} is more than the {task.n_student} rows of B; lower it")
    crowd = next((i for i, student in enumerate(config.students) if student.is_crowd), None)
    if crowd is not None and find_spec("crowdkit") is None:
        raise ConfigError(
            f'students.{crowd}.method: {config.students[crowd].method} needs crowd-kit; run pip install "raw2s[crowd]"'
        )
    _check_label_files(config)
    if config.teacher_training.batch_size > task.n_teacher and len(models) > 1:
        raise ConfigError(
            f"teacher_training.batch_size: {config.teacher_training.batch_size} is more than the {task.n_teacher} rows of A; lower it"
        )


def _check_label_files(config: RunConfig) -> None:
    """Every row of every file, and that each seed's B has some of its ids."""
    task = config.task
    files = {f"teachers.{i}.file": teacher.file for i, teacher in enumerate(config.teachers) if teacher.file is not None}
    drawn = {
        seed: {row["id"] for row in draw_slurp(task.draw_from, task.n_teacher, task.n_student, seed)["student"]}
        for seed in (config.seeds if files else [])
    }
    for key, file in files.items():
        try:
            ids = {annotation.id for annotation in read_label_file(file, get_task(task.name).classes)}
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
        for seed, own in drawn.items():
            if not ids & own:
                raise ConfigError(f"{key}: {file} labels none of the items of B (seed {seed}); use the ids of its student.jsonl")


def _check_ctranslate2(key: str, model: str) -> None:
    kind = load_model_config(model).model_type
    if kind not in CTRANSLATE2_MODELS:
        raise ConfigError(f"{key}: ctranslate2 is for {', '.join(CTRANSLATE2_MODELS)}, and {model} is {kind}; set backend: torch")
    if find_spec("ctranslate2") is None:
        raise ConfigError(
            f'{key}: the package ctranslate2 is not installed; run pip install "raw2s[ctranslate2]", or set backend: torch'
        )


def _check_model(config: RunConfig, key: str, model: str) -> None:
    source = model_source(model)
    builtin = Path(source).parent == TINY_FOLDER
    if builtin and config.task.draw_from != "pool":
        raise ConfigError(f"{key}: {model} was pretrained on SLURP's train split outside the pool; set task.draw_from: pool")
    if builtin and config.task.prompt == "paper":
        raise ConfigError(f"{key}: the paper's prompt is longer than the {model}'s 256 positions; set task.prompt: short")
    try:
        sizes = load_model_config(model).get_text_config()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{key}: no model {model!r} ({reason}); name a built-in model, a folder or a reachable hub id"
        ) from None
    if config.task.name == "slurp_slots":
        own_beams = any(student.cdpo for student in config.students)
        used = ["labeling"] if key.startswith("teachers") else ["preference"] if own_beams else []
        for name in (*used, "evaluation"):
            beams = getattr(config, name).beams
            if beams > sizes.vocab_size:
                raise ConfigError(f"{name}.beams: {beams} beams are more than the {sizes.vocab_size} pieces of {model}; lower it")
        positions = getattr(sizes, "max_position_embeddings", None)
        if positions is not None and config.labeling.max_new_tokens >= positions:
            raise ConfigError(
                f"labeling.max_new_tokens: {config.labeling.max_new_tokens} leaves no room for a prompt in the {positions} "
                f"positions of {model}; lower it"
            )
