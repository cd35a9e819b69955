import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from model_folders import of_config
from transformers import GPT2Config, LlamaConfig, MistralConfig

from raw2s.cli import guarded
from raw2s.config import RunConfig, SweepConfig, describe_keys, load_config, parse_config, read_yaml
from raw2s.errors import ConfigError, StageFailed
from raw2s.methods import LOSSES, METHODS, label_of, title_of
from raw2s.methods.method import PREFERENCE_LOSSES
from raw2s.models.source import model_source
from raw2s.pipeline import preflight
from raw2s.pipeline.preflight import check
from raw2s.tasks import TASKS
from raw2s.teachers import TEACHERS
from raw2s.teachers.label_file import LabelFileSection
from raw2s.tuning.reading import load_sweeps

ROOT = Path(__file__).resolve().parents[1]
SCIQ = Path(os.environ.get("RAW2S_SHARED", ROOT.parent / "shared")) / "data" / "sciq"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TREE = {
    "teachers": [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt"}],
    "student": {"model": "tiny-gpt-neox"},
}

ANN = {"name": "ann", "kind": "labels", "file": "ann.csv"}
AS_IT_IS = {"fine_tune": False}
CLASSES = {"name": "slurp_scenario"}


def make(**sections) -> RunConfig:
    return parse_config(TREE | sections)


def refusal(function, *arguments) -> str:
    """The message of the ConfigError that `function` raises: one line."""
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


def written(folder: Path, tree: dict) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def leaves(tree, prefix: str = "") -> dict:
    """The values of a dumped config by dotted key; of a list of sections the first."""
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return leaves(tree[0], f"{prefix}.0")
    if isinstance(tree, dict) and tree:
        return {key: leaf for name, value in tree.items() for key, leaf in leaves(value, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): tree}


MISTAKES = {
    "unknown section": ({"tsk": {}}, "tsk: unknown key", "did you mean task?"),
    "unknown key": ({"task": {"n_teachr": 3}}, "task.n_teachr: unknown key", "did you mean n_teacher?"),
    "unknown key in a list": ({"methods": [{"confidenc": True}]}, "methods.0.confidenc: unknown key", "did you mean confidence?"),
    "unknown key of a loss": (
        {"methods": [{"loss": {"gama_max": 0.1}}]},
        "methods.0.loss.gama_max: unknown key",
        "did you mean gamma_max?",
    ),
    "unknown key of a loss, beside it": (
        {"methods": [{"gama_max": 0.1}]},
        "methods.0.gama_max: unknown key",
        "did you mean loss.gamma_max?",
    ),
    "a loss's knob beside it": (
        {"methods": [{"method": "naive", "gamma_max": 0.1}]},
        "methods.0.gamma_max: unknown key",
        "write loss.gamma_max",
    ),
    "another loss's knob": (
        {"methods": [{"method": "naive", "loss": {"kl_weight": 0.1}}]},
        "methods.0.loss.kl_weight: unknown key",
        "it goes with name: edl; remove it",
    ),
    "another method's knob": (
        {"methods": [{"method": "naive", "score": "prob"}]},
        "methods.0.score: unknown key",
        "it goes with method: joint; remove it",
    ),
    "the former name of methods": ({"students": [{"method": "naive"}]}, "students: unknown key", "it is now methods"),
    "the former place of joint's score": ({"labeling": {"score": "prob"}}, "labeling.score: unknown key", "preference.score"),
    "the former place of beta": ({"preference": {"beta": 10}}, "preference.beta: unknown key", "write loss.beta"),
    "an unknown task": ({"task": {"name": "slurp_slot"}}, "task: 'slurp_slot' is unknown", "did you mean slurp_slots?"),
    "an unknown method": ({"methods": [{"method": "naif"}]}, "methods.0: 'naif' is unknown", "did you mean naive?"),
    "an unknown loss": ({"methods": [{"loss": "zzz"}]}, "methods.0.loss: 'zzz' is unknown", "name one of ce, edl"),
    "pairs' loss for a method": ({"methods": [{"loss": "cdpo"}]}, "methods.0.loss: 'cdpo' is unknown", "name one of ce, edl"),
    "an unknown loss of pairs": ({"preference": {"loss": "dpo"}}, "preference.loss: 'dpo' is unknown", "did you mean cdpo?"),
    "an unknown kind of teacher": (
        {"teachers": [{"name": "ann", "kind": "label", "file": "ann.csv"}]},
        "teachers.0: 'label' is unknown",
        "did you mean labels?",
    ),
    "a module that is not there": (
        {"task": {"name": "no_such_module:TASK"}},
        "task: 'no_such_module:TASK' cannot be imported",
        "put its folder on PYTHONPATH",
    ),
    "a module without that name": (
        {"methods": [{"method": "math:NAIVE"}]},
        "methods.0: 'math:NAIVE' cannot be imported",
        "correct it",
    ),
    "an object of another kind": (
        {"teachers": [{"name": "ann", "kind": "math:pi"}]},
        "teachers.0: 'math:pi' is a float and no TeacherKind",
        "name a TeacherKind object",
    ),
    "a number for a method": ({"methods": [3]}, "methods.0: 3 is no section", "give a mapping with method"),
    "unknown key in an optional section": ({"ceiling_training": {"epoch": 1}}, "ceiling_training.epoch:", "did you mean epochs?"),
    "unknown key like no other": ({"ray": {"zzzzzz": 1}}, "ray.zzzzzz: unknown key", "see --help"),
    "missing key": ({"teachers": [{"name": "gpt2"}]}, "teachers.0.model: missing", "add it"),
    "a file without a kind": (
        {"teachers": [{"name": "ann", "file": "ann.csv"}]},
        "teachers.0.model: missing",
        "or set another kind (model, labels)",
    ),
    "labels without a file": (
        {"teachers": [{"name": "ann", "kind": "labels"}]},
        "teachers.0.file: missing",
        "or set another kind (model, labels)",
    ),
    "labels with a model": (
        {"teachers": [{"name": "ann", "kind": "labels", "file": "ann.csv", "model": "tiny-opt"}]},
        "teachers.0.model: unknown key; it goes with kind: model",
        "remove it",
    ),
    "a model with a file": (
        {"teachers": [{"name": "ann", "model": "tiny-opt", "file": "ann.csv"}]},
        "teachers.0.file: unknown key; it goes with kind: labels",
        "remove it",
    ),
    "another calibration": ({"labeling": {"calibrate": "platt"}}, "labeling.calibrate:", "not 'platt'; correct"),
    "no number": ({"task": {"n_teacher": "many"}}, "task.n_teacher:", "not 'many'; correct"),
    "a fraction of an utterance": ({"task": {"n_test": 1.5}}, "task.n_test:", "not 1.5; correct"),
    "no epoch": ({"student_training": {"epochs": 0}}, "student_training.epochs:", "not 0; correct"),
    "not one of the choices": ({"methods": [{"loss": {"bridge": "eq9"}}]}, "methods.0.loss.bridge:", "not 'eq9'; correct"),
    "a word for a section": ({"labeling": "fast"}, "labeling:", "not 'fast'; correct"),
    "no seed": ({"seeds": []}, "seeds:", "correct"),
    "no teacher": ({"teachers": []}, "teachers:", "correct"),
    "a name with a slash": ({"name": "a/b"}, "name:", "not 'a/b'; correct"),
    "a name of two lines": ({"name": "a\nb"}, "name:", "correct"),
    "weights all zero": ({"weights": {"loss": [0, 0]}}, "weights.loss:", "give at least one above zero"),
    "a negative weight": ({"weights": {"joint": [2, -1]}}, "weights.joint:", "none below"),
    "a weight too few": (
        {"weights": {"preference": [1]}},
        "weights.preference: 1 weights for 2 teachers",
        "one each, or `uniform`",
    ),
    "another word for uniform": ({"weights": {"loss": "equal"}}, "weights.loss:", "'uniform', not 'equal'; correct"),
    "a weight that is no number": ({"weights": {"loss": [1, math.nan]}}, "weights.loss", ""),
    "an infinite weight": ({"weights": {"loss": [1, math.inf]}}, "weights.loss", ""),
    "an infinite learning rate": (
        {"student_training": {"learning_rate": math.inf}},
        "student_training.learning_rate:",
        "correct",
    ),
    "a batch that does not divide": (
        {"student_training": {"batch_size": 12, "workers": 2, "micro_batch_size": 4}},
        "student_training: batch_size 12",
        "make it a multiple of 8",
    ),
    "a score that chooses nothing": (
        {"student_training": {"judge": "score"}},
        "student_training: judge: score chooses an epoch, and keep: last chooses none",
        "set keep: best, or judge: loss",
    ),
    "an entry's own batch that does not divide": (
        {"student_training": {"micro_batch_size": 4}, "methods": [{}, {"training": {"workers": 3}}]},
        "methods.1.training: batch_size 16 is not divisible by workers x micro_batch_size = 3 x 4",
        "make it a multiple of 12",
    ),
    "an entry's own unknown key": (
        {"methods": [{"training": {"learnin_rate": 1}}]},
        "methods.0.training.learnin_rate: unknown key",
        "did you mean learning_rate?",
    ),
    "an entry's own key of a section inside": (
        {"methods": [{"cdpo": True, "preference": {"epochs": 1}}]},
        "methods.0.preference.epochs: unknown key",
        "write training.epochs",
    ),
    "an entry's own wrong value": (
        {"methods": [{"training": {"epochs": 0}}]},
        "methods.0.training.epochs:",
        "not 0; correct",
    ),
    "an entry's own weight too few": (
        {"methods": [{}, {"weights": {"loss": [1]}}]},
        "methods.1.weights.loss: 1 weights for 2 teachers",
        "one each, or `uniform`",
    ),
    "bf16 states beside fp32 weights": (
        {"student_training": {"optimizer_states": "bf16"}},
        "student_training: optimizer_states: bf16 goes with precision: bf16",
        "set those, or optimizer_states: fp32",
    ),
    "bf16 states in host memory": (
        {"student_training": {"optimizer_states": "bf16", "precision": "bf16", "offload": "optimizer"}},
        "student_training: optimizer_states: bf16 goes with precision: bf16",
        "offload: none",
    ),
    "bf16 at a stage where DeepSpeed steps wrongly": (
        {"teacher_training": {"precision": "bf16", "zero_stage": 0}},
        "teacher_training: precision: bf16 needs zero_stage 1 or more",
        "set zero_stage: 1",
    ),
    "offload without the stage it needs": (
        {"student_training": {"zero_stage": 1, "offload": "all"}},
        "student_training: offload all needs zero_stage 3",
        "raise zero_stage",
    ),
    "compiled layers whose weights are taken apart": (
        {"student_training": {"zero_stage": 3, "compile": "layers"}},
        "student_training: compile: layers does not go with zero_stage 3",
        "compile: auto",
    ),
    "DeepSpeed's word for a key of ours": (
        {"teacher_training": {"deepspeed": {"zero_optimization": {"stage": 2}}}},
        "teacher_training: deepspeed.zero_optimization.stage is set by zero_stage",
        "remove it",
    ),
    "two teachers of one name": ({"teachers": [TREE["teachers"][0]] * 2}, "teachers: two", "rename one"),
    "a teacher named like the student's actors": (
        {"teachers": [{"name": "student", "model": "tiny-gpt2"}]},
        "teachers",
        "rename",
    ),
    "units that lose much": ({"labeling": {"batch_size": 1001}}, "labeling.batch_size:", "correct"),
    "more actors at least than at most": ({"student": {"model": "tiny-opt", "replicas": [3, 1]}}, "student.replicas", ""),
    "a selector that selects nothing": (
        {"student_training": {"label_selector": {"pool": "in()"}}},
        "student_training.label_selector.pool: 'in()' selects no label",
        "write a value",
    ),
    "a seed twice": ({"seeds": [1, 1]}, "seeds", ""),
    "single without its teacher": (
        {"methods": [{"method": "single"}]},
        "methods.0.teacher: missing; add it",
        "or set another method",
    ),
    "a teacher without single": (
        {"methods": [{"method": "joint", "teacher": "opt"}]},
        "methods.0.teacher: unknown key; it goes with method: single",
        "remove it",
    ),
    "the paper's prompt for classes": (
        {"task": {"name": "slurp_scenario", "prompt": "paper"}},
        "task.prompt: unknown key; it goes with name: slurp_slots",
        "remove it",
    ),
}

RULES = {
    "votes on text": ({"methods": [{"method": "majority"}]}, "methods.0.method: majority", "use single or naive or joint"),
    "joint decoding of classes": (
        {"task": CLASSES, "methods": [{"method": "joint"}]},
        "methods.0.method: joint combines texts",
        "use single or naive or bayesian",
    ),
    "joint decoding without a model": (
        {"teachers": [ANN], "methods": [{"method": "joint"}]},
        "methods.0.method: joint needs a teacher that scores",
        "add a model with a weight above zero in weights.joint",
    ),
    "preference without a model's weight": (
        {"teachers": [ANN, TREE["teachers"][0]], "methods": [{"cdpo": True}], "weights": {"preference": [1, 0]}},
        "methods.0.cdpo: preference needs",
        "weights.preference",
    ),
    "weights of a file of texts from devel": (
        {"teachers": [ANN, TREE["teachers"][0]], "weights": {"loss": "devel"}},
        "weights.loss: devel needs every teacher's labels of devel",
        "give numbers",
    ),
    "calibrated text": ({"labeling": {"calibrate": "temperature"}}, "labeling.calibrate needs class", "remove it"),
    "weights of a file from devel": (
        {"task": CLASSES, "teachers": [ANN, TREE["teachers"][0]], "weights": {"loss": "devel"}},
        "weights.loss: devel needs every teacher's labels of devel",
        "give numbers",
    ),
    "nothing to calibrate": (
        {"task": CLASSES, "teachers": [ANN], "labeling": {"calibrate": "temperature"}},
        "labeling.calibrate:",
        "remove it",
    ),
    "classes by a backend for text": (
        {"task": CLASSES, "teachers": [TREE["teachers"][0] | {"backend": "ctranslate2"}]},
        "teachers: backend ctranslate2",
        "remove it",
    ),
    "nobody's name": (
        {"methods": [{"method": "single", "teacher": "bert"}]},
        "methods.0.teacher: no teacher is called 'bert'",
        "name one of gpt2, opt",
    ),
    "preference among classes": (
        {"task": CLASSES, "methods": [{"cdpo": True}]},
        "methods.0.cdpo: cdpo needs a task of text",
        "remove it",
    ),
    "decoding weights that are taken apart": (
        {"teacher_training": {"judge": "score", "zero_stage": 3}},
        "teacher_training.judge: score decodes, and zero_stage 3",
        "set teacher_training.zero_stage: 2, or teacher_training.judge: loss",
    ),
    "an instruction without the example": (
        {"teachers": [TREE["teachers"][0] | AS_IT_IS | {"instruction": "Which slots?"}]},
        "teachers.0.instruction: it lacks {prompt}",
        "put it in",
    ),
    "examples before a fine-tuned model's prompts": (
        {"teachers": [TREE["teachers"][0] | {"shots": 2}]},
        "teachers: gpt2's instruction and shots go with fine_tune: false",
        "or remove them",
    ),
    "a model as it is, asked by another backend": (
        {"teachers": [TREE["teachers"][0] | AS_IT_IS | {"backend": "ctranslate2"}]},
        "teachers: gpt2 with fine_tune: false is asked by torch",
        "remove its backend",
    ),
}
"""What only the task can tell: refused by `check`, like what its data cannot bear."""


@pytest.mark.parametrize(("sections", "key", "advice"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_key_and_what_to_do(sections, key, advice):
    message = refusal(lambda: make(**sections))
    assert message.startswith(key)
    assert advice in message


@pytest.mark.parametrize(("sections", "key", "advice"), RULES.values(), ids=RULES)
def test_what_the_task_cannot_bear_is_one_line_too(sections, key, advice):
    message = refusal(check, make(**sections))
    assert message.startswith(key)
    assert advice in message


@pytest.mark.parametrize(
    ("method", "name", "title"),
    [
        ({}, "bayesian", "Bayesian multi-weak (EDL)"),
        ({"loss": "ce"}, "bayesian+ce", "Bayesian multi-weak (CE)"),
        ({"method": "naive"}, "naive", "naive multi-weak (CE)"),
        ({"method": "joint"}, "joint", "joint decoding (CE)"),
        ({"method": "joint", "loss": {"name": "edl"}}, "joint+edl", "joint decoding (EDL)"),
        ({"method": "single", "teacher": "opt"}, "single:opt", "single teacher opt (CE)"),
    ],
)
def test_methods_have_readable_names(method, name, title):
    (section,) = make(methods=[method]).methods
    assert (label_of(section), title_of(section)) == (name, title)


def test_every_mistake_is_named_at_once():
    message = refusal(lambda: make(tsk={}, seeds="one", labeling={"beams": 0}))
    assert all(key in message for key in ("tsk:", "seeds:", "labeling.beams:"))


def test_overrides_are_yaml_values_put_over_the_file(tmp_path):
    overrides = [
        "teachers.1.name=second", "task.n_test=null", "preference.score=prob", "seeds=[3, 4]", "weights.loss=[1, 3]",
        "preference.training.epochs=7", "student_training={batch_size: 32}", "student_training.micro_batch_size=4", "name=a=b",
    ]  # fmt: skip
    config = load_config(written(tmp_path, TREE), overrides[:-1])
    assert [teacher.name for teacher in config.teachers] == ["gpt2", "second"]
    assert config.task.n_test is None
    assert config.preference.score == "prob"
    assert config.seeds == [3, 4]
    assert config.teacher_weights("loss") == [0.25, 0.75]
    assert config.preference.training.epochs == 7
    assert (config.student_training.batch_size, config.student_training.micro_batch_size) == (32, 4)
    assert "'a=b'" in refusal(load_config, written(tmp_path, TREE), overrides[-1:])  # only the first = separates


def test_weights_are_normalized():
    config = make(weights={"joint": [3, 1]})
    assert config.teacher_weights("joint") == [0.75, 0.25]
    assert config.teacher_weights("loss") == [0.5, 0.5]


@pytest.mark.parametrize("section", [name for name, value in make().model_dump().items() if isinstance(value, dict)])
def test_naming_a_section_without_its_keys_changes_nothing(section):
    """So that `--set preference.training.epochs=2` sets the epochs and nothing else."""
    nested = {name: {} for name, value in make().model_dump()[section].items() if isinstance(value, dict)}
    assert make(**{section: TREE.get(section, {}) | nested}) == make()


def with_every_section() -> RunConfig:
    """Those too that are absent by default."""
    lora = {"lora": {}}
    return make(ceiling_training=lora, student_training=lora, teacher_training=lora, preference={"training": lora})


VARYING = {
    "task": ("name", TASKS),
    "teachers.0": ("kind", TEACHERS),
    "methods.0": ("method", METHODS),
    "methods.0.loss": ("name", LOSSES),
    "preference.loss": ("name", PREFERENCE_LOSSES),
}
"""By the place of a choice: the key that makes it, and what there is."""


def defaults_of(section) -> dict:
    """The keys of one choice's own section with their defaults as JSON; "required" without one, and no sections inside it."""
    fields = {name: field for name, field in section.model_fields.items() if name != "loss"}
    constructed = section.model_construct().model_dump(mode="json", warnings=False)
    return {name: "required" if field.is_required() else constructed[name] for name, field in fields.items()}


def told_keys() -> list[tuple[str, str, str]]:
    """(key, default, the rest of the line), of every line of --help that has a default."""
    split = [re.fullmatch(r"(\S+) \[(.*?)\]: (.*)", line) for line in describe_keys()]
    return [match.groups() for match in split if match]


def test_help_describes_every_key():
    lines = describe_keys()
    assert all(line.partition(": ")[2].strip() not in ("", "None") for line in lines)
    assert len(set(lines)) == len(lines)
    fixed = {key for key in leaves(with_every_section().model_dump()) if not key.startswith((*VARYING, "task"))}
    varying = {
        f"{at}.{key}" for at, (_, known) in VARYING.items() for choice in known.values() for key in defaults_of(choice.section)
    }
    assert {key for key, _, _ in told_keys()} == fixed | varying


def test_help_tells_the_true_defaults():
    true = leaves(with_every_section().model_dump(mode="json"))
    told = {key: default for key, default, _ in told_keys() if not key.startswith((*VARYING, "task"))}
    assert {key for key, default in told.items() if default == "required"} == {"student.model"}
    del told["student.model"]
    wrong = {key: (default, true[key]) for key, default in told.items() if yaml.safe_load(default) != true[key]}
    assert wrong == {}


@pytest.mark.parametrize(
    ("at", "choice"), [(at, name) for at, (_, known) in VARYING.items() for name in known], ids=lambda value: value
)
def test_help_tells_every_choices_keys_and_their_defaults(at, choice):
    key, known = VARYING[at]
    told = {}
    for name, default, rest in told_keys():
        only = re.search(rf"\({key}: (.*)\)$", rest)
        if name.rpartition(".")[0] == at and (only is None or choice in only[1].split(", ")):
            assert name not in told, "one key with two defaults"
            told[name.rpartition(".")[2]] = default if default == "required" else yaml.safe_load(default)
    assert told.pop(key) in (*known, "the method's own")
    assert told == {name: default for name, default in defaults_of(known[choice].section).items() if name != key}


@pytest.mark.parametrize("command", [("-m", "raw2s.cli", "run"), ("-m", "raw2s.cli", "sweep"), ("jobs/full_pipeline.py",)])
def test_help_prints_every_key(command):
    done = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    printed = [line.strip() for line in done.stdout.splitlines()]
    own = describe_keys(SweepConfig, "sweep.") if "sweep" in command else []
    assert [line for line in [*own, *describe_keys()] if line not in printed] == []


def test_a_failed_stage_ends_with_status_1(capsys):
    def work():
        raise StageFailed("stage label failed")

    assert guarded("raw2s run", work) == 1
    assert capsys.readouterr().err == "raw2s run: stage label failed\n"
    assert guarded("raw2s run", lambda: None) == 0


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configs_pass(file):
    if "sciq" in file.stem and not SCIQ.is_dir():
        pytest.skip("SciQ is not shipped")
    overrides = [f"task.data={SCIQ}"] if "sciq" in file.stem else []
    if "sweep" in read_yaml(file, []):
        sweep = load_sweeps(file, overrides)[0]
        config = sweep.config(sweep.point(0.5, 0))
    else:
        config = load_config(file, overrides)
    models = [config.student.model, *(teacher.model for teacher in config.models)]
    files = [teacher.file for teacher in config.teachers if isinstance(teacher, LabelFileSection)]
    if not all(file.is_file() for file in files):
        pytest.skip("its label files are not shipped; the file's first lines say how they are made")
    if any("/" in model for model in models):
        pytest.skip("its models are on the Hugging Face hub")
    if "tiny-llama" in models and not Path(model_source("tiny-llama")).is_dir():
        pytest.skip("tiny-llama has not been made")
    check(config)


PREFLIGHT = {
    "a teacher's folder that is not there": (
        {"teachers": [TREE["teachers"][0], {"name": "b", "model": "./no/folder"}]},
        "teachers.1.model:",
        "name a built-in model, a folder",
    ),
    "the student's folder that is not there": (
        {"student": {"model": "/no/such/folder"}},
        "student.model:",
        "name a built-in model",
    ),
    "more beams than pieces": (
        {"labeling": {"beams": 1001}},
        "labeling.beams:",
        "more than the 1000 pieces of tiny-gpt2; lower it",
    ),
    "a GPU for a teacher's actors and none for its training": (
        {"teachers": [TREE["teachers"][0] | {"num_gpus": 0.5}]},
        "teacher_training.gpus_per_worker: teachers.0.num_gpus is for labeling and testing",
        "set teacher_training.gpus_per_worker: 1, or teachers.0.num_gpus: 0",
    ),
    "a GPU for the student's actors and none for its last training": (
        {
            "student": {"model": "tiny-gpt-neox", "num_gpus": 1},
            "student_training": {"gpus_per_worker": 1},
            "methods": [{"cdpo": True}],
        },
        "preference.training.gpus_per_worker: student.num_gpus",
        "set preference.training.gpus_per_worker: 1",
    ),
    "more beams at test time": ({"evaluation": {"beams": 5000}}, "evaluation.beams:", "lower it"),
    "more of the student's own beams": (
        {"preference": {"beams": 1501}, "methods": [{"cdpo": True}]},
        "preference.beams:",
        "more than the 1500 pieces of tiny-gpt-neox; lower it",
    ),
    "more utterances than the pool": ({"task": {"n_teacher": 2001}}, "task.n_teacher + task.n_student", "lower them"),
    "more utterances than the test set": (
        {"task": {"n_test": 5000}},
        "task.n_test: 5000 is more than the 2,974",
        "set null for all",
    ),
    "more utterances than devel": (
        {"task": {"n_validation": 2034}},
        "task.n_validation: 2034 is more than the 2,033",
        "lower it",
    ),
    "a step larger than B": ({"task": {"n_student": 8}}, "student_training.batch_size:", "lower it"),
    "an entry's own step larger than B": (
        {"methods": [{}, {"training": {"batch_size": 4000}}]},
        "methods.1.training.batch_size:",
        "lower it",
    ),
    "an entry's own weights fitted to labels of B alone": (
        {"task": CLASSES, "teachers": [*TREE["teachers"], ANN], "methods": [{}, {"weights": {"loss": "devel"}}]},
        "methods.1.weights.loss: devel needs every teacher's labels of devel",
        "give numbers",
    ),
    "an entry's own preference that nothing follows": (
        {"methods": [{"preference": {"beams": 3}}]},
        "methods.0.preference: it goes with cdpo: true",
        "remove preference",
    ),
    "an entry's own beams": (
        {"methods": [{"cdpo": True, "preference": {"beams": 1501}}]},
        "methods.0.preference.beams:",
        "lower it",
    ),
    "a step larger than A": ({"task": {"n_teacher": 8}}, "teacher_training.batch_size:", "lower it"),
    "a step of the ceiling larger than B": (
        {"ceiling_training": {"batch_size": 4000}},
        "ceiling_training.batch_size:",
        "lower it",
    ),
    "an instruction without the example, after a label file": (
        {"teachers": [ANN, TREE["teachers"][0] | AS_IT_IS | {"instruction": "Which slots?"}]},
        "teachers.1.instruction: it lacks {prompt}",
        "put it in",
    ),
    "more examples than A has, after a label file": (
        {"task": {"n_teacher": 8}, "teachers": [ANN, TREE["teachers"][0] | AS_IT_IS | {"shots": 9}]},
        "teachers.1.shots: 9 are more than the 8 rows of A",
        "lower it",
    ),
    "text the built-in models have seen": ({"task": {"draw_from": "train"}}, "teachers.0.model:", "set task.draw_from: pool"),
    "a prompt too long for the built-in models": ({"task": {"prompt": "paper"}}, "teachers.0.model:", "set task.prompt: short"),
}


@pytest.mark.parametrize(("sections", "key", "advice"), PREFLIGHT.values(), ids=PREFLIGHT)
def test_preflight_names_the_key_and_what_to_do(sections, key, advice):
    message = refusal(check, make(**sections))
    assert message.startswith(key)
    assert advice in message


def test_a_large_model_is_not_trained_in_fp32_without_a_gpu_for_want_of_a_key(tmp_path):
    of_config(tmp_path, LlamaConfig(num_hidden_layers=5, tie_word_embeddings=True))  # 1.14 billion
    large = {"student": {"model": str(tmp_path)}}
    message = refusal(check, make(**large))
    assert message.startswith(f"student_training.gpus_per_worker: {tmp_path} has 1.1 billion parameters")
    assert "set student_training.gpus_per_worker: 1 and student_training.precision: bf16" in message
    for fits in ({"gpus_per_worker": 1}, {"precision": "bf16"}):
        check(make(student_training=fits, **large))
    of_config(tmp_path, LlamaConfig(num_hidden_layers=4, tie_word_embeddings=True))
    check(make(**large))


@pytest.mark.parametrize(("model", "named"), [("tiny-gpt2", "lm_head"), ("tiny-gpt2", "wte"), ("tiny-gpt-neox", "lm_head")])
def test_an_adapter_beside_the_output_heads_weight_is_refused(model, named):
    """The fused losses would not train it, and one beside a tied embedding would change the head as it is merged."""
    student, lora = {"model": model}, {"target_modules": ["dense", named]}
    message = refusal(check, make(student=student, ceiling_training={"lora": lora}))
    assert message.startswith(f"ceiling_training.lora.target_modules: {named} holds the weight of {model}'s output head")
    assert "name other modules, or all-linear" in message
    check(make(student=student, ceiling_training={"lora": {"target_modules": ["dense", "head"]}}))


def test_a_model_on_gpus_is_trained_on_them_or_not_at_all():
    on_gpu = {"name": "gpt2", "model": "tiny-gpt2", "num_gpus": 1}
    check(make(teachers=[on_gpu], teacher_training={"gpus_per_worker": 1}))
    check(make(teachers=[on_gpu | AS_IT_IS]))
    student = {"model": "tiny-gpt-neox", "num_gpus": 1}
    check(make(student=student, student_training={"gpus_per_worker": 1}))  # nobody follows with preference


def test_preflight_reads_the_label_files(tmp_path, monkeypatch):
    def message(content: str, **sections) -> str:
        (tmp_path / "ann.csv").write_text(content)
        ann = {"name": "ann", "kind": "labels", "file": str(tmp_path / "ann.csv")}
        return refusal(check, make(task={"name": "slurp_scenario"}, teachers=[TREE["teachers"][0], ann], **sections))

    unknown = message("id,label\n1,alarms\n")
    assert unknown.startswith(f"teachers.1: {tmp_path / 'ann.csv'}: row 1: ")
    assert "'alarms' is no class of the task; did you mean alarm?" in unknown
    assert "labels none of the items of B (seed 1)" in message("id,label\n-1,alarm\n")
    assert "no file" in refusal(check, make(task={"name": "slurp_scenario"}, teachers=[ANN]))
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    needed = refusal(check, make(task={"name": "slurp_scenario"}, methods=[{}, {"method": "mace"}]))
    assert needed == "methods.1.method: mace needs crowd-kit; run pip install crowd-kit"


def test_preflight_names_models_that_ctranslate2_cannot_read_and_the_missing_package(tmp_path, monkeypatch):
    teacher = {"name": "a", "model": str(tmp_path), "backend": "ctranslate2"}
    of_config(tmp_path, MistralConfig(vocab_size=300))
    message = refusal(check, make(teachers=[teacher]))
    assert message.startswith("teachers.0.backend: ctranslate2 is for gpt2, opt, gpt_neox, llama")
    assert refusal(check, make(teachers=[ANN, teacher])).startswith("teachers.1.backend: ctranslate2 is for")
    assert "is mistral; set backend: torch" in message
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    message = refusal(check, make(teachers=[teacher | {"model": "tiny-opt"}]))
    assert message.startswith("teachers.0.backend: the package ctranslate2 is not installed")
    assert "pip install ctranslate2" in message


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"labeling": {"beams": 1000}},
        {"preference": {"beams": 1501}},  # nobody follows with preference
        {"task": {"name": "slurp_scenario"}, "labeling": {"beams": 5000}},  # classes need no beams
        {"task": {"n_teacher": 3984, "n_student": 16}},
    ],
)
def test_preflight_lets_the_rest_through(sections):
    check(make(**sections))


@pytest.mark.parametrize("task", [{"draw_from": "train", "n_teacher": 5000}, {"prompt": "paper"}])
def test_a_folder_of_ones_own_is_no_built_in_model(tmp_path, task):
    mine = of_config(tmp_path / "mine", GPT2Config(vocab_size=100, n_embd=8, n_layer=1, n_head=1))
    check(make(task=task, teachers=[{"name": "mine", "model": mine}], student={"model": mine}))
