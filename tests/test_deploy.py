"""The recipes of deploy/ and the Dockerfile, as far as can be told without a cloud, a Kubernetes or a builder."""

import copy
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli
from tiny_runs import ROOT, tiny_run

from raw2s.config import parse_config
from raw2s.teachers.model import ModelSection

LAUNCHED = ["cluster.yaml", "deploy/aws.yaml"]
KUBERAY = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))
RECIPES = [*(ROOT / name for name in LAUNCHED), *KUBERAY, ROOT / "Dockerfile"]
FIELDS = yaml.safe_load((ROOT / "tests" / "data" / "kuberay.yaml").read_text())
PAGE = (ROOT / "docs" / "cluster.md").read_text()


def launched(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_the_cluster(name):
    """What `ray up` does before it asks the cloud for anything."""
    validate_config(prepare_config(launched(name)))


@pytest.mark.parametrize("path", ["setup_command", "available_node_types.teach.label", "docker.images"])
def test_ray_refuses_a_wrong_key(path):
    wrong = launched("deploy/aws.yaml")
    *parents, last = path.split(".")
    inner = wrong
    for parent in parents:
        inner = inner[parent]
    inner[last] = {}
    with pytest.raises(jsonschema.ValidationError, match=last):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_ray_asks_for_the_token_and_shows_its_job_server_to_its_machine_alone(name):
    cluster = launched(name)
    starts = [c for use in ("head", "worker") for c in cluster[f"{use}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2 and all(c.startswith("RAY_AUTH_MODE=token ") for c in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0] and "0.0.0.0" not in "".join(starts)
    assert "~/.ray/auth_token" in cluster["file_mounts"].values()


def test_teachers_may_be_taken_away_and_students_not():
    kinds = launched("deploy/aws.yaml")["available_node_types"]
    market = {name: kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for name, kind in kinds.items()}
    assert market == {"head": None, "teach": "spot", "train": None}


def documents(file) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_every_field_is_one_of_kuberay_or_kubernetes(file):
    for document in documents(file):
        jsonschema.Draft202012Validator(FIELDS).validate(document)


def paths(tree: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """Of every mapping in the tree that has fixed keys."""
    if isinstance(tree, dict):
        if before[-1:] not in (("labels",), ("requests",), ("limits",), ("stringData",), ("rayStartParams",)):
            yield before
        for key, inner in tree.items():
            yield from paths(inner, *before, key)
    elif isinstance(tree, list):
        for i, inner in enumerate(tree):
            yield from paths(inner, *before, i)


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_a_misspelt_field_is_refused_wherever_it_stands(file):
    validator = jsonschema.Draft202012Validator(FIELDS)
    for document in documents(file):
        for path in paths(document):
            wrong = copy.deepcopy(document)  # also parts the aliases of YAML
            inner = wrong
            for key in path:
                inner = inner[key]
            inner["replica"] = 1
            assert not validator.is_valid(wrong), path


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_a_rayjob_holds_together(file):
    *others, job = documents(file)
    made = {document["metadata"]["name"] for document in others}
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and job["spec"]["shutdownAfterJobFinishes"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and f"USER {pod['securityContext']['runAsUser']}:" in DOCKERFILE
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == volumes.keys()
            secrets = {source["secretRef"]["name"] for source in container.get("envFrom", [])}
            assert {*volumes.values(), *secrets} == made, "what is made is used, and what is used is made"
            assert container["resources"]["requests"] == container["resources"]["limits"]


ASKED = re.compile(r"^#   (teachers|student|teacher_training|student_training): +(.*?)(?:  #.*)?$", re.MULTILINE)


@pytest.mark.parametrize("file", [file for file in RECIPES if ASKED.search(file.read_text())], ids=lambda file: file.name)
def test_what_a_header_says_a_config_asks_is_a_config_and_has_a_place(file):
    """Its keys are raw2s's, its labels are some group's, and the student's workers fit the pod or machine of theirs."""
    asked = {key: yaml.safe_load(f"{{{keys}}}") for key, keys in ASKED.findall(file.read_text())}
    base = tiny_run(ROOT)
    teachers = [base["teachers"][0] | asked.pop("teachers"), *base["teachers"][1:]]
    sections = {key: base.get(key, {}) | keys for key, keys in asked.items()}
    sections["student_training"] |= {"batch_size": 16, "micro_batch_size": 2}
    config = parse_config(base | sections | {"teachers": teachers})
    assert isinstance(config.teachers[0], ModelSection)
    if file.name == "aws.yaml":
        groups = launched("deploy/aws.yaml")["available_node_types"]
        places = {name: (group.get("labels"), group["resources"]) for name, group in groups.items()}
    else:
        groups = documents(file)[-1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        limits = {g["groupName"]: g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in groups}
        places = {
            g["groupName"]: (
                g["labels"],
                {"CPU": int(limits[g["groupName"]]["cpu"]), "GPU": int(limits[g["groupName"]]["nvidia.com/gpu"])},
            )
            for g in groups
        }
    labels, small = places["teach"]
    assert labels == config.teachers[0].label_selector and small["GPU"] >= config.teachers[0].num_gpus
    training, (labels, large) = config.student_training, places["train"]
    assert labels == training.label_selector and training.cpus_per_worker <= large["CPU"] / large["GPU"]
    assert large["GPU"] == training.workers


def commands() -> list[tuple[str, str]]:
    """Every command of Ray in a header or on the page, by where it stands."""
    found = [(file.name, re.findall(r"^#   (ray .*?)(?:  +#.*|>.*|&.*)?$", file.read_text(), re.MULTILINE)) for file in RECIPES]
    blocks = "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.DOTALL))
    found.append(("cluster.md", re.findall(r"^(ray .*?)(?:  +#.*|>.*|&.*)?$", blocks, re.MULTILINE)))
    return [(where, command) for where, those in found for command in those]


@pytest.mark.parametrize(("where", "command"), commands())
def test_ray_understands_the_commands(where, command):
    """Parsed by Ray's own command line; nothing is started."""
    inner: click.Command = cli
    words = shlex.split(command)[1:]
    while isinstance(inner, click.Group):
        name = words.pop(0)
        assert name in inner.commands, f"ray has no command {name}"
        inner = inner.commands[name]
    inner.make_context(inner.name, words)


def test_ray_has_the_options_that_the_page_on_ports_names():
    options = {option for parameter in cli.commands["start"].params for option in parameter.opts}
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(?:ray start )?(--[a-z-]+)`", page))
    assert len(named) > 8 and named <= options


def test_ray_does_not_understand_any_command():
    with pytest.raises(click.UsageError):
        cli.commands["up"].make_context("up", ["cluster.yaml", "--no-such-option"])


DOCKERFILE = (ROOT / "Dockerfile").read_text()


def ignored(name: str) -> bool:
    """By .dockerignore, whose last fitting line decides; of its language only what stands in ours."""
    decided = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and (fnmatch(name, pattern) or name == pattern):
            decided = not line.startswith("!")
    return decided


def test_the_dockerfile_copies_what_is_there_and_sent():
    copied = [name for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert {"raw2s", "jobs", "configs", "constraints.txt"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists() and not ignored(name), name
    assert ignored(".git") and ignored("runs") and ignored("tests")


def test_the_dockerfile_pins_its_base_and_ends_without_root():
    instructions = dict(re.findall(r"^(FROM|USER|RUN|CMD) (.*)$", DOCKERFILE, re.MULTILINE))
    image, _, tag = instructions["FROM"].partition(":")
    assert image == "python" and re.match(r"3\.\d+-", tag), "a tag, and not latest"
    assert instructions["USER"].split(":")[0] not in ("root", "0")
    assert DOCKERFILE.index("\nUSER") > DOCKERFILE.rindex("\nRUN"), "the user cannot change what is installed"


def test_the_dockerfile_installs_as_the_page_says():
    [pip] = re.findall(r"^RUN (pip .*)$", DOCKERFILE, re.MULTILINE)
    assert "-c constraints.txt" in pip
    for line in re.findall(r"^#   (docker .*)$", DOCKERFILE, re.MULTILINE):
        assert line in PAGE
