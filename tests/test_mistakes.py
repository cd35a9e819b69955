"""What a user can get wrong, through the command line: one line on what and on what to do, in seconds, and the storage as it was.

`pytest -rP tests/test_mistakes.py` prints every message with its seconds.
"""

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from closed_port import NOBODY
from model_folders import copied
from own_mails import TEAMS, mails, own_mails, write_jsonl
from tiny_runs import tiny_run

from raw2s.cli import main
from raw2s.pipeline import ray_address

SECONDS = 15.0
Input = Callable[[Path, pytest.MonkeyPatch], list[str]]
"""Makes the mistake in a folder, which is the working directory; gives the command line."""


def command(*argv: str) -> Input:
    return lambda folder, patch: list(argv)


def text(content: str | bytes) -> Input:
    """A config's file, byte for byte."""

    def make(folder, patch):
        (folder / "config.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["run", "config.yaml"]

    return make


def written(folder: Path, tree: dict, *argv: str) -> list[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return [*(argv or ("run",)), "config.yaml"]


def config(verb: str = "run", **changes: object) -> Input:
    """A good run with some keys changed; None takes one away."""

    def make(folder, patch):
        tree = tiny_run(Path("runs"), **changes)
        return written(folder, {key: value for key, value in tree.items() if value is not None}, verb)

    return make


def sets(*overrides: str) -> Input:
    def make(folder, patch):
        return [*written(folder, tiny_run(Path("runs"))), *(part for override in overrides for part in ("--set", override))]

    return make


def own(content: str | bytes | list[dict] | None = None, name: str = "train.jsonl", **task: object) -> Input:
    """Data of one's own, one of its files with another content, and keys of the task changed."""

    def make(folder, patch):
        tree = tiny_run(Path("runs"), methods=[{}], student_training={"batch_size": 8}) | own_mails(folder)
        if isinstance(content, list):
            write_jsonl(folder / name, content)
        elif content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        tree["task"] = tree["task"] | task
        return written(folder, tree)

    return make


def labels(rows: list[dict] | str | bytes, name: str = "people.jsonl") -> Input:
    """People's labels of mails, as a file."""

    def make(folder, patch):
        argv = own(None)(folder, patch)
        content = rows if isinstance(rows, (str, bytes)) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [*argv, "--set", f"teachers.1.file={name}"]

    return make


def student(make_folder: Callable[[Path], object], **changes: object) -> Input:
    """A model of one's own as the student."""

    def make(folder, patch):
        make_folder(folder / "mine")
        return [*config(**changes)(folder, patch), "--set", "student.model=./mine"]

    return make


def cut(folder: Path) -> None:
    """Weights whose copying was cut off."""
    copied(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def sharded(folder: Path) -> None:
    """An index of weights of which one file is missing."""
    copied(folder)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    )


def pickled(folder: Path) -> None:
    copied(folder, "*.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def broken_config(folder: Path) -> None:
    copied(folder)
    (folder / "config.json").write_text("{")


def broken_tokenizer(folder: Path) -> None:
    copied(folder)
    (folder / "tokenizer.json").write_text("{}")


def few_positions(folder: Path) -> None:
    copied(folder)
    sizes = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(sizes | {"n_positions": 40}))


def storage(make_storage: Callable[[Path], str]) -> Input:
    def make(folder, patch):
        return [*config()(folder, patch), "--set", f"storage={make_storage(folder)}"]

    return make


def a_file(folder: Path) -> str:
    (folder / "taken").write_text("mine")
    return "taken"


def swept_uri(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    knob = {"methods": [{}], "weights": {"loss": {"simplex": 2}}, "sweep": {"name": "found", "trials": 2}}
    return [*config("sweep", **knob)(folder, patch), "--set", "storage=s3://bucket/runs"]


def unsaid(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """A run without results, of another version."""
    (folder / "storage" / "cut").mkdir(parents=True)
    (folder / "storage" / "cut" / "config.yaml").write_text("studnets: []\n")
    return ["store", "storage"]


def half_swept(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    (folder / "storage" / "found" / "0-naive").mkdir(parents=True)
    (folder / "storage" / "found" / "0-naive" / "trials.jsonl").touch()
    return ["store", "storage"]


def environment(name: str, value: str, **changes: object) -> Input:
    def make(folder, patch):
        patch.setenv(name, value)
        return config(**changes)(folder, patch)

    return make


def swallowed(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """A cluster behind a firewall that answers nothing."""

    def connect(address: object, *, timeout: float) -> None:
        assert timeout < SECONDS
        raise TimeoutError("timed out")

    patch.setattr(ray_address.socket, "create_connection", connect)
    return environment("RAY_ADDRESS", "10.0.0.1:6379")(folder, patch)


def as_csv(rows: list[dict]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


GPT2 = {"name": "gpt2", "model": "tiny-gpt2"}
OPT = {"name": "opt", "model": "tiny-opt"}
CLASSES = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}
TEAM = [{"id": i, "label": "billing"} for i in range(56)]
LATIN = [{"id": 1, "label": "café"}]

CONFIGS: dict[str, tuple[Input, str]] = {
    "no config file": (command("run", "none.yaml"), "none.yaml: no such config file; see configs/"),
    "a folder for a config": (command("run", "."), ".: cannot be read (Is a directory); name a YAML file"),
    "an empty file": (text(""), "config.yaml: a config is a mapping of keys; raw2s init writes one"),
    "a list for a config": (text("- a\n- b\n"), "config.yaml: a config is a mapping of keys"),
    "a brace left open": (text("name: a\ntask: {name: slurp_slots\nseeds: [1]\n"), "config.yaml: line 3, column 6: expected"),
    "a list left open": (text("teachers: [\n"), "config.yaml: line 2, column 1: expected"),
    "two colons": (text("a: b: c\n"), "line 1, column 5: mapping values are not allowed here; mend the YAML there"),
    "a tab": (text("task:\n\tname: slurp_slots\n"), "line 2, column 1: found character '\\t' that cannot start any token; write spaces"),
    "a quote left open": (text('name: "a\n'), "line 2, column 1: found unexpected end of stream; mend the YAML there"),
    "an unknown alias": (text("name: *other\n"), "line 1, column 7: found undefined alias 'other'; mend the YAML there"),
    "a Python object": (text("name: !!python/object:os.system x\n"), "line 1, column 7: could not determine a constructor"),
    "a key twice": (text("name: a\nseeds: [1]\nname: b\n"), "line 3, column 1: name is given twice, first in line 1; remove one"),
    "a key twice, further in": (
        text("task:\n  name: slurp_slots\n  n_test: 3\n  n_test: 4\n"),
        "line 4, column 3: n_test is given twice, first in line 3; remove one",
    ),
    "Latin-1": (text("name: a\n# café\n".encode("latin-1")), "config.yaml: line 2 is not UTF-8; save the file as UTF-8"),
    "UTF-16": (text("name: a\n".encode("utf-16")), "config.yaml: line 1 is not UTF-8; save the file as UTF-8"),
    "a NUL": (text("name: a\nseeds: \0\n"), "config.yaml: line 2 holds a character that YAML does not allow; remove it"),
    "an unknown key": (config(tsk={}), "tsk: unknown key; did you mean task?"),
    "no teachers": (config(teachers=[]), "teachers: at least one is needed, not []; correct the value"),
    "teachers absent": (config(teachers=None), "teachers: missing; add it to the config"),
    "student absent": (config(student=None), "student: missing; add it to the config"),
    "storage null": (text("storage: null\nteachers: []\nstudent: {model: a}\n"), "storage: a path is needed, not None; correct"),
    "a name with a slash": (config(name="a/b"), "name: a name is letters, digits, _, - and . alone, not 'a/b'; correct"),
    "the store's name": (config(name="artifacts"), "name: artifacts is the artifact store's folder; choose another"),
    "weights of the wrong length": (config(weights={"loss": [1]}), "weights.loss: 1 weights for 2 teachers; give one each"),
    "a negative weight": (config(weights={"loss": [2, -1]}), "weights.loss: [2.0, -1.0] holds a negative weight"),
    "seeds that are words": (config(seeds=["a"]), "seeds.0: input should be a valid integer"),
    "a seed alone": (config(seeds=1), "seeds: input should be a valid list, not 1; correct"),
    "a tracker twice": (config(tracking=["mlflow", "mlflow"]), "tracking: a tracker occurs twice; remove one"),
    "an unknown tracker": (config(tracking=["aim"]), "tracking.0: input should be 'mlflow' or 'wandb', not 'aim'; correct the value"),
    "no seeds": (config(seeds=[]), "seeds: at least one is needed, not []; correct the value"),
    "an unknown method": (config(methods=[{"method": "naif"}]), "methods.0: 'naif' is unknown; did you mean naive?"),
    "an unknown task": (config(task={"name": "sciqq"}), "task: 'sciqq' is unknown; did you mean sciq?"),
    "a batch that does not divide": (config(student_training={"batch_size": 9}), "student_training: batch_size 9 is not divisible"),
    "two teachers of one name": (config(teachers=[GPT2, GPT2]), "teachers: two teachers have the same name; rename one"),
    "a sweep run": (config(sweep={"trials": 3}), "config.yaml: its section sweep makes it a sweep's file; run it with raw2s sweep"),
    "a run swept": (config("sweep"), "no key of the config is a distribution; write one"),
    "a sweep of an earlier version": (text("trials: 3\nteachers: []\n"), "trials: unknown key"),
}  # fmt: skip
OVERRIDES: dict[str, tuple[Input, str]] = {
    "an unknown key": (sets("labling.beams=3"), "labling: unknown key; did you mean labeling?"),
    "no value": (sets("labeling.beams"), "--set labeling.beams: no value; write --set key=value"),
    "a wrong type": (sets("labeling.beams=many"), "labeling.beams: input should be a valid integer"),
    "stray spaces": (sets("labeling.beams = 3"), "labeling.beams : unknown key; did you mean beams?"),
    "a value that is no YAML": (sets("seeds=[1"), "--set seeds=[1: '[1' is no YAML value; write --set key=value"),
    "an entry too far": (sets("teachers.5.model=tiny-gpt2"), "teachers has 2 entries, counted from 0; see --help"),
    "an entry by name": (sets("teachers.gpt2.model=tiny-gpt2"), "teachers has 2 entries, counted from 0; see --help"),
    "a key of a word": (sets("name.foo=1"), "--set name.foo=1: name is 'tiny' and holds no keys; see --help for the keys"),
    "an empty model": (sets("student.model="), "student.model: input should be a valid string, not None; correct"),
    "no epochs": (sets("student_training.epochs=0"), "student_training.epochs: input should be greater than 0, not 0; correct"),
    "a method's key": (sets("methods.0.loss.gama_max=1"), "methods.0.loss.gama_max: unknown key; did you mean gamma_max?"),
}  # fmt: skip
FITTING: dict[str, tuple[Input, str]] = {
    "cDPO on classes": (config(task=CLASSES, methods=[{"cdpo": True}]), "methods.0.cdpo: cdpo needs a task of text"),
    "votes on text": (config(methods=[{"method": "majority"}]), "methods.0.method: majority combines classes"),
    "a test set too large": (config(task={"n_test": 5000}), "task.n_test: 5000 is more than the 2,974"),
    "a pool too small": (config(task={"n_teacher": 2001}), "task.n_teacher + task.n_student"),
    "a devel too large": (config(task={"n_validation": 2034}), "task.n_validation: 2034 is more than the 2,033"),
    "more beams than pieces": (config(labeling={"beams": 1001}), "labeling.beams: 1001 beams are more than the 1000 pieces"),
    "answers longer than the model": (config(labeling={"max_new_tokens": 256}), "labeling.max_new_tokens: 256 leaves no room"),
    "answers that leave too little": (
        config(labeling={"max_new_tokens": 250}),
        "tokens do not fit the 256 positions (max_position_embeddings)",
    ),
    "the paper's prompt on a tiny model": (config(task={"prompt": "paper"}), "256 positions; set task.prompt: short"),
    "what a tiny model has read": (config(task={"draw_from": "train"}), "set task.draw_from: pool"),
    "a batch larger than B": (config(student_training={"batch_size": 4000}), "student_training.batch_size: 4000 is more than"),
    "a GPU to label and none to train": (
        config(teachers=[{**GPT2, "num_gpus": 1}]),
        "teacher_training.gpus_per_worker: teachers.0.num_gpus is for labeling and testing",
    ),
    "chat without a template": (own(None, chat=True), "tiny-gpt2 has no chat template; name a model made for chat"),
}  # fmt: skip
MODELS: dict[str, tuple[Input, str]] = {
    "a built-in misspelt": (config(student={"model": "tiny-gpt3"}), "student.model: no model 'tiny-gpt3'; did you mean tiny-gpt2?"),
    "a teacher misspelt": (config(teachers=[OPT, {**GPT2, "model": "tinygpt2"}]), "teachers.1.model: no model 'tinygpt2'; did you mean"),
    "a folder that is not there": (config(student={"model": "./no/folder"}), "student.model: no folder './no/folder'; name a built-in"),
    "a path from the root": (config(student={"model": "/no/folder"}), "student.model: no folder '/no/folder'; name a built-in"),
    "a folder beside another": (student(copied, teachers=[{**GPT2, "model": "mine/gpt2"}]), "no folder 'mine/gpt2'; name a built-in"),
    "a hub that does not answer": (config(student={"model": "org/model"}), "no model 'org/model' ("),
    "a canonical hub id": (config(student={"model": "distilgpt2"}), "a folder or a reachable hub id"),
    "a tokenizer alone": (student(lambda f: copied(f, "config.json")), "student.model: "),
    "no tokenizer": (student(lambda f: copied(f, "tokenizer*")), "has no tokenizer; save the model's own there with save_pretrained"),
    "no weights": (student(lambda f: copied(f, "*.safetensors")), "has no model.safetensors; save the weights as safetensors"),
    "a pickle for weights": (student(pickled), "has no model.safetensors; save the weights as safetensors, which alone are read"),
    "weights cut short": (student(cut), "model.safetensors is cut short or damaged (Error while deserializing header"),
    "a shard missing": (student(sharded), "has no model-2.safetensors; save the weights as safetensors"),
    "a broken config": (student(broken_config), "config.json that cannot be read ("),
    "a broken tokenizer": (student(broken_tokenizer), "has a tokenizer that cannot be read ("),
    "too few positions": (student(few_positions, labeling={"max_new_tokens": 24}), "do not fit the 40 positions"),
    "a plan of a folder without weights": (
        lambda folder, patch: ["plan", *student(lambda f: copied(f, "*.safetensors"))(folder, patch)[1:]],
        "has no model.safetensors",
    ),
}  # fmt: skip
DATA: dict[str, tuple[Input, str]] = {
    "a missing file": (own(None, train="tain.jsonl"), "task.train: no file or folder 'tain.jsonl'; correct the path"),
    "a broken line": (own('{"title": "a"}\n{"title": \n'), "train.jsonl: row 2: not JSON (Expecting value"),
    "Latin-1": (own('{"title": "café"}\n'.encode("latin-1")), "train.jsonl: line 1 is not UTF-8; save the file as UTF-8"),
    "a missing column": (own(None, prompt="{titel}\n"), "row 1: there is no column 'titel'"),
    "an empty file": (own(""), "train.jsonl is empty; give it at least one row"),
    "an answer that is no class": (
        own([row | {"team": "slaes"} for row in mails(0, 56)], classes=list(TEAMS)),
        "train.jsonl: row 1: 'slaes' is none of the classes billing, delivery, support, sales; did you mean sales?",
    ),
    "more rows than there are": (own(None, n_teacher=90), "task.n_teacher + task.n_student is 91, but"),
    "no metric of classes": (own(None, metric="rouge_l"), "metric: rouge_l does not fit form: classes; name one of accuracy"),
    "a label file missing": (
        lambda folder, patch: [*own()(folder, patch), "--set", "teachers.1.file=none.csv"],
        "teachers.1: no file 'none.csv'; correct the path",
    ),
    "an unknown class": (labels([{"id": 1, "label": "biling"}]), "row 1: 'biling' is no class of the task; did you mean billing?"),
    "the wrong case": (labels([{"id": 1, "label": "Billing"}]), "'Billing' is no class of the task; did you mean billing?"),
    "an id twice": (labels([*TEAM, TEAM[0]]), "row 57: id 0 occurs twice; remove one, or add a column annotator"),
    "an empty label file": (labels(""), "people.jsonl: holds no row; give labels, or remove the teacher"),
    "too few probabilities": (labels([{"id": 1, "probabilities": [1.0]}]), "are not 4 numbers of at least 0 that sum to 1: they are 1"),
    "probabilities that sum to 9": (labels([{"id": 1, "probabilities": [9, 0, 0, 0]}]), "they are 4, and sum to 9; correct them"),
    "no item of B": (labels([{"id": 5000, "label": "sales"}]), "people labels none of the items of B (seed 1); use the ids"),
    "ids that are texts": (labels([{"id": "one", "label": "sales"}]), "row 1: 'one' is no id, which is a whole number; correct it"),
    "no column of labels": (labels([{"id": 1, "class": "sales"}]), "needs a column id and one column label or probabilities, and has"),
    "a .tsv": (labels("id\tlabel\n1\tsales\n", "people.tsv"), "ends in none of .jsonl, .csv, .parquet; convert it"),
    "a .json": (labels("[]", "people.json"), "ends in none of .jsonl, .csv, .parquet; convert it"),
    "broken labels": (labels('{"id": 1, "label": "sales"}\n{"id": 2\n'), "row 2: not JSON (Expecting ',' delimiter, column 9); mend"),
    "labels in Latin-1": (labels(as_csv(LATIN).encode("latin-1"), "people.csv"), "people.csv: line 2 is not UTF-8; save the file"),
    "too many columns": (labels("id,label\n1,sales,billing\n", "people.csv"), "people.csv: row 1: more values than columns"),
    "no Parquet": (labels("id,label\n", "people.parquet"), "people.parquet: cannot be read ("),
}  # fmt: skip
SURROUNDINGS: dict[str, tuple[Input, str]] = {
    "a key in the storage's URI": (
        storage(lambda _: "s3://AKIA:hush@bucket/runs"),
        "storage: s3://bucket/runs is given with credentials in it; take them out and give credentials by the environment",
    ),
    "a key after the storage's URI": (storage(lambda _: "s3://bucket/runs?secret_key=hush"), "s3://bucket/runs is given with secret_key"),
    "storage of no known kind": (storage(lambda _: "s4://bucket/runs"), "storage: s4://bucket/runs cannot be written and read ("),
    "storage that answers nothing": (
        storage(lambda _: f"s3://bucket/runs?region=eu-west-1&scheme=http&endpoint_override={NOBODY}"),
        "cannot be written and read (",
    ),
    "a sweep under a URI": (swept_uri, "storage: s3://bucket/runs is no disk, on which alone a sweep keeps its trials; name a folder"),
    "a store of nothing": (command("store", "runs/none"), "runs/none: no such folder; give the storage of a config"),
    "a store with a run that cannot say": (unsaid, "what this run uses cannot be told ("),
    "a store with a sweep on its way": (half_swept, "a sweep that has no best config yet may go on; finish it, or delete"),
    "storage that is a file": (storage(a_file), "storage: taken is no folder that can be written (File exists); name another"),
    "storage under a file": (storage(lambda f: a_file(f) + "/runs"), "taken/runs is no folder that can be written (Not a directory)"),
    "storage in /proc": (storage(lambda _: "/proc/raw2s"), "storage: /proc/raw2s is no folder that can be written (No such file"),
    "storage that is /proc": (storage(lambda _: "/proc"), "storage: /proc is no folder that can be written ("),
    "no Ray at the address": (environment("RAY_ADDRESS", NOBODY), "RAY_ADDRESS: no Ray to join at 127.0.0.1"),
    "no Ray at the client's address": (
        environment("RAY_ADDRESS", f"ray://{NOBODY}"),
        "RAY_ADDRESS: no Ray to join at ray://127.0.0.1",
    ),
    "an address that swallows": (swallowed, "RAY_ADDRESS: no Ray to join at 10.0.0.1:6379 (timed out); start it, correct the"),
    "a host that is none": (environment("RAY_ADDRESS", "no-such-host.invalid:6379"), "no Ray to join at no-such-host.invalid:6379 ("),
    "the jobs' address": (environment("RAY_ADDRESS", "http://head:8265"), "is the jobs' server, which takes `ray job submit` alone"),
    "an address without a port": (environment("RAY_ADDRESS", "head"), "RAY_ADDRESS: 'head' is no host:port; correct it, or unset it"),
    "a port that is a word": (environment("RAY_ADDRESS", "head:ray"), "RAY_ADDRESS: 'head:ray' is no host:port; correct it"),
    "a label's address": (
        lambda folder, patch: ["label", *environment("RAY_ADDRESS", NOBODY)(folder, patch)[1:]],
        "RAY_ADDRESS: no Ray to join at 127.0.0.1",
    ),
    "no MLflow at the address": (environment("MLFLOW_TRACKING_URI", f"http://{NOBODY}"), "MLFLOW_TRACKING_URI: no MLflow at"),
    "an MLflow of no scheme": (environment("MLFLOW_TRACKING_URI", "ftp://there"), "MLFLOW_TRACKING_URI: no MLflow at ftp://there ("),
    "a report of nothing": (command("report", "runs/none"), "raw2s report: "),
    "labels of nothing": (command("labels", "export", "runs/none"), "neither a label table nor a finished run; give what"),
    "an export of nothing": (command("export", "runs/none", "student"), "raw2s export: "),
    "a prediction by nothing": (
        command("predict", "none", "--input", "a.jsonl", "--output", "b.jsonl"),
        "none: no such folder, and no hub id org/name; correct it",
    ),
    "nobody to predict": (
        command("predict", "none", "--input", "a.jsonl", "--output", "b.jsonl", "--workers", "0"),
        "--workers 0: nobody would answer; give 1 or more",
    ),
}  # fmt: skip
TABLES = {"config": CONFIGS, "set": OVERRIDES, "fit": FITTING, "model": MODELS, "data": DATA, "around": SURROUNDINGS}
MISTAKES = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with the storage of an earlier run; neither the hub nor anything that a run begins with is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://{NOBODY}")
    for module in ("run", "execute"):
        monkeypatch.setattr(f"raw2s.pipeline.{module}.execute", starts)
    (tmp_path / "runs" / "earlier").mkdir(parents=True)
    (tmp_path / "runs" / "earlier" / "results.json").write_text("{}")
    return tmp_path


def starts(*_: object, **__: object) -> None:
    raise AssertionError("a stage would start")


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_in_seconds_and_leaves_the_storage_as_it_was(name, folder, monkeypatch, capsys):
    make, words = MISTAKES[name]
    argv, before = make(folder, monkeypatch), files(folder / "runs")
    start, spent = time.monotonic(), time.process_time()
    status = main(argv)
    seconds, spent = time.monotonic() - start, time.process_time() - spent
    err = capsys.readouterr().err
    print(f"{seconds:5.2f} s  {err}", end="")
    assert status == 2
    assert words in err
    assert "hush" not in err, "a secret"
    assert err.startswith(f"raw2s {argv[0]}: ")
    assert err.endswith("\n") and err.count("\n") == 1
    assert "; " in err or "did you mean" in err, "what to do"
    assert spent < SECONDS and seconds < 4 * SECONDS, "of its own, and with what a busy machine adds"
    assert files(folder / "runs") == before


@pytest.mark.parametrize("argv", [[], ["walk", "config.yaml"], ["run"], ["plan", "config.yaml", "--mfu", "much"]])
def test_a_wrong_command_ends_with_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: raw2s")


def test_the_same_folder_serves_once_the_mistake_is_mended(folder, monkeypatch, capsys):
    assert main(storage(a_file)(folder, monkeypatch)) == 2
    with pytest.raises(AssertionError, match="a stage would start"):
        main([*config()(folder, monkeypatch), "--set", "storage=runs"])
    assert "Traceback" not in capsys.readouterr().err
