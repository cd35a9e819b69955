"""What stages ask of Ray against what there is, without Ray: a run that could never start is told so in one line."""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tiny_runs import tiny_run

from raw2s.config import RayConfig, parse_config
from raw2s.errors import ConfigError
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import execute
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.resources import Node, lacking
from raw2s.pipeline.stage import Stage

LAPTOP = Node(resources={"CPU": 2}, labels={"ray.io/node-id": "a"})
SERVER = Node(resources={"CPU": 16, "GPU": 2, "teaching": 1}, labels={"pool": "teach"})
GPT2 = {"name": "gpt2", "model": "tiny-gpt2"}


@pytest.fixture(scope="module")
def stages_of(tmp_path_factory):
    def stages(**changes: object) -> dict[str, Stage]:
        config = parse_config(tiny_run(tmp_path_factory.mktemp("runs"), teachers=[GPT2], **changes))
        return {stage.name: stage for stage in plan_stages(config, 1).in_order()}

    return stages


def told(stages: dict[str, Stage], *nodes: Node) -> dict[str, str]:
    return {name: problem for name, stage in stages.items() if (problem := lacking(stage, nodes))}


def test_what_asks_for_a_cpu_runs_on_a_laptop(stages_of):
    assert told(stages_of(), LAPTOP) == {}


def test_more_workers_than_cpus_are_told_with_both_numbers(stages_of):
    stages = stages_of(teacher_training={"workers": 3, "micro_batch_size": 2, "batch_size": 12})
    assert told(stages, LAPTOP) == {
        "teacher/gpt2": "stage teacher/gpt2: 3 training workers ask for 1 CPU each, and Ray has 2 CPU; lower workers, cpus_per_worker "
        "or gpus_per_worker of its training, or give Ray more (ray.num_cpus of a local one, RAY_ADDRESS for a larger cluster)"
    }
    assert told(stages, LAPTOP, LAPTOP) == {}, "workers may be on several nodes"


def test_a_gpu_for_a_worker_or_an_actor_is_told(stages_of):
    stages = stages_of(student={"model": "tiny-gpt-neox", "num_gpus": 1}, student_training={"gpus_per_worker": 1}, methods=[{}])
    problems = told(stages, LAPTOP)
    assert {"ceiling", "student/0-bayesian"} < problems.keys()
    assert "teacher/gpt2" not in problems
    assert "a training worker asks for 1 CPU, 1 GPU, and Ray has 2 CPU, 0 GPU; lower" in problems["ceiling"]
    assert (
        "an actor of student asks for 1 CPU, 1 GPU, and Ray has 2 CPU, 0 GPU; lower num_cpus"
        in problems["test/student/0-bayesian"]
    )
    assert told(stages, LAPTOP, SERVER) == {}


def test_what_two_nodes_have_together_serves_no_single_process(stages_of):
    stages = stages_of(teacher_training={"cpus_per_worker": 3})
    problems = told(stages, LAPTOP, LAPTOP)
    assert problems.keys() == {"teacher/gpt2"}
    assert "asks for 3 CPU, and Ray has 4 CPU over 2 nodes; lower" in problems["teacher/gpt2"]


def test_custom_resources_and_labels_are_looked_for(stages_of):
    placed = {**GPT2, "resources": {"teaching": 1}, "label_selector": {"pool": "teach"}}
    config = parse_config(tiny_run("runs", teachers=[placed]))
    stages = {stage.name: stage for stage in plan_stages(config, 1).in_order()}
    small = Node(resources={"CPU": 16}, labels={"pool": "teach"})
    assert "Ray has 16 CPU, 0 teaching on nodes labeled pool: teach; lower" in told(stages, LAPTOP, small)["beams/gpt2"]
    assert "Ray has 32 CPU, 0 teaching over 2 nodes labeled pool: teach; lower" in told(stages, small, small)["beams/gpt2"]
    assert told(stages, LAPTOP, SERVER) == {}
    assert told(stages, LAPTOP, Node(resources={"CPU": 1, "teaching": 1}, labels=None)) == {}, "nodes that are still to come"


def test_labels_that_no_node_has_are_told_beside_those_there_are(stages_of):
    stages = stages_of(teacher_training={"label_selector": {"pool": "train", "ray.io/accelerator-type": "in(H100, H200)"}})
    other = Node(resources={"CPU": 96}, labels={"ray.io/node-id": "b", "pool": "train", "ray.io/accelerator-type": "L4"})
    assert told(stages, LAPTOP, SERVER, other) == {
        "teacher/gpt2": "stage teacher/gpt2: a training worker asks for nodes labeled pool: train, ray.io/accelerator-type: "
        "in(H100,H200), and Ray's have pool: teach or train, ray.io/accelerator-type: L4; correct label_selector, or label a node "
        "(ray start --labels)"
    }
    assert "and Ray's have no labels; correct" in told(stages, LAPTOP)["teacher/gpt2"]
    fitting = Node(resources={"CPU": 1}, labels={"pool": "train", "ray.io/accelerator-type": "H200"})
    assert told(stages, LAPTOP, fitting) == {}


@pytest.mark.parametrize("selector", ["teach", "!train", "in(both, teach)", "!in(both, train)"])
def test_labels_are_read_as_ray_reads_them(stages_of, selector):
    stages = stages_of(teacher_training={"label_selector": {"pool": selector}})
    there = Node(resources={"CPU": 1}, labels={"pool": "teach"})
    elsewhere = Node(resources={"CPU": 1}, labels={"pool": "train"})
    assert told(stages, there) == {}
    assert told(stages, elsewhere).keys() == {"teacher/gpt2"}


@given(cpus=st.integers(0, 5), workers=st.integers(1, 4), each=st.sampled_from([0.5, 1, 2]))
def test_it_is_told_exactly_where_the_workers_find_no_place(stages_of, cpus, workers, each):
    stages = stages_of(teacher_training={"workers": workers, "cpus_per_worker": each, "micro_batch_size": 1, "batch_size": 12})
    nodes = [Node(resources={"CPU": cpus}, labels={})]
    assert (lacking(stages["teacher/gpt2"], nodes) is None) == (workers * each <= cpus)


def test_nothing_starts_where_one_stage_has_no_place(stages_of, tmp_path, monkeypatch):
    monkeypatch.setattr("raw2s.pipeline.execute.start_ray", lambda config: None)
    monkeypatch.setattr("raw2s.pipeline.execute.cluster_nodes", lambda: [LAPTOP])
    said = StringIO()
    with pytest.raises(ConfigError, match="stage teacher/gpt2: a training worker asks for 3 CPU, and Ray has 2 CPU; lower"):
        execute(
            list(stages_of(teacher_training={"cpus_per_worker": 3}).values()),
            store=ArtifactStore(tmp_path),
            display=StageDisplay(Console(file=said)),
            ray_config=RayConfig(),
        )
    assert said.getvalue() == "" and list(tmp_path.iterdir()) == []
