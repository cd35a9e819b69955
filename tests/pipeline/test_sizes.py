"""`raw2s plan`: every stage's size from the run's own data, and what to set where one does not fit."""

import json

import pytest
from tiny_runs import tiny_run, write_config

from raw2s.cli import main
from raw2s.config import LoraConfig, TrainingConfig, parse_config
from raw2s.pipeline.nearest import nearest_batch, nearest_training
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.sizes import plan_sizes
from raw2s.pipeline.training_sizes import state_layout
from raw2s.sizing.stage import device_of


def sizes(tmp_path, memory=None, **sections):
    config = parse_config(tiny_run(tmp_path, **sections))
    return plan_sizes(config, plan_stages(config, 1), device_of("H100", memory, 0.4))


def test_every_stage_with_a_model_has_a_size(tmp_path):
    found = {size.stage: size for size in sizes(tmp_path)}
    assert list(found) == [
        "teacher/gpt2", "teacher/opt", "beams/gpt2", "beams/opt", "label: gpt2", "label: opt", "test/teacher/gpt2",
        "test/teacher/opt", "ceiling", "test/ceiling", "student/0-bayesian", "test/student/0-bayesian", "pairs/0: beams",
        "pairs/0: gpt2", "pairs/0: opt", "pairs/0: student", "cdpo/0", "test/cdpo/0",
    ]  # fmt: skip
    student, ceiling = found["student/0-bayesian"], found["ceiling"]
    assert student.tokens > ceiling.tokens, "two teachers' texts a prompt, not one"
    assert student.disk == 4 * student.parameters
    assert all(size.peak > 0 and size.flops > 0 and size.gpu_hours(device_of("H100", None, 0.4)) == 0 for size in found.values())


def test_weights_of_devel_score_one_text_an_example(tmp_path):
    found = {size.stage: size for size in sizes(tmp_path, weights={"loss": "devel"})}
    on_devel, on_b = found["fit: opt"], found["label: opt"]
    assert "fit: gpt2" in found and 0 < on_devel.tokens < on_b.tokens and on_devel.parameters == on_b.parameters


def test_classes_have_no_beams(tmp_path):
    task = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}
    found = {size.stage: size for size in sizes(tmp_path, task=task, methods=[{"method": "bayesian"}])}
    assert "classes/gpt2" in found and "label: gpt2" not in found
    assert not any(size.memory.get("cache") for size in found.values())


@pytest.mark.parametrize("name", ["slurp_slots", "slurp_scenario"])
def test_doubt_is_one_pass_over_what_it_asks(tmp_path, name):
    task = {"name": name, "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}
    evaluation = {"batch_size": 12, "doubt": True, "dropout_passes": 3}
    found = {size.stage: size for size in sizes(tmp_path, task=task, methods=[{"method": "naive"}], evaluation=evaluation)}
    doubt, test = found["doubt/student/0-naive"], found["test/student/0-naive"]
    assert doubt.peak > 0
    if name == "slurp_scenario":  # the validation examples too
        assert doubt.tokens > 1.3 * test.tokens
    dropout = found["dropout/student/0-naive"]
    once = test if name == "slurp_scenario" else doubt
    assert (dropout.tokens, dropout.flops, dropout.peak) == (3 * once.tokens, 3 * once.flops, once.peak)


def test_what_does_not_fit_names_the_nearest_setting(tmp_path):
    roomy = {size.stage: size for size in sizes(tmp_path, "80GiB")}
    assert all(size.advice == {} for size in roomy.values())
    bound = roomy["student/0-bayesian"].peak - 2**16
    tight = {size.stage: size for size in sizes(tmp_path, f"{bound / 2**20:.3f}MiB")}
    assert tight["student/0-bayesian"].advice == {"student_training.micro_batch_size": 4}
    own = {size.stage: size for size in sizes(tmp_path, f"{bound / 2**20:.3f}MiB", methods=[{"training": {"epochs": 5}}])}
    assert own["student/0-bayesian"].advice == {"methods.0.training.micro_batch_size": 4}
    hopeless = {size.stage: size for size in sizes(tmp_path, "1MiB")}
    assert hopeless["teacher/gpt2"].advice is None


def test_the_command_prints_it_and_json(tmp_path, capsys):
    config = str(write_config(tmp_path, tiny_run(tmp_path / "runs")))
    assert main(["plan", config, "--json", "--memory", "1MiB"]) == 0
    found = json.loads(capsys.readouterr().out)
    stage = next(stage for stage in found["stages"] if stage["stage"] == "cdpo/0")
    assert stage["peak"] == pytest.approx(sum(stage["memory"].values()) + stage["framework"])
    assert stage["fits"] is False
    assert main(["plan", config, "--memory", "1MiB"]) == 0
    out = capsys.readouterr().out
    assert "to do" in out and "cdpo/0 takes" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["plan", config, "--gpu", "none"]) == 2


TRAINING = TrainingConfig(batch_size=16, micro_batch_size=8, precision="bf16", gpus_per_worker=1)


@pytest.mark.parametrize(
    ("fits", "changes"),
    [
        (lambda t: True, {}),
        (lambda t: t.micro_batch_size <= 2, {"micro_batch_size": 2}),
        (lambda t: t.activation_checkpointing >= 0.5, {"activation_checkpointing": 0.5}),
        (lambda t: t.offload == "optimizer", {"offload": "optimizer", "zero_stage": 1}),
        (lambda t: t.workers >= 4 and t.zero_stage == 2, {"zero_stage": 2, "workers": 4, "micro_batch_size": 4}),
        (lambda t: t.lora is not None, {"lora": LoraConfig()}),
        (lambda t: False, None),
    ],
)
def test_the_fewest_and_cheapest_changes_come_first(fits, changes):
    assert nearest_training(TRAINING, fits) == changes


def test_fp32_on_a_gpu_becomes_bf16_before_anything_moves():
    single = TRAINING.model_copy(update={"precision": "fp32"})
    assert nearest_training(single, lambda t: t.precision == "bf16") == {"precision": "bf16"}
    whole = single.model_copy(update={"zero_stage": 0})
    assert nearest_training(whole, lambda t: t.precision == "bf16") == {"precision": "bf16", "zero_stage": 1}


def test_bf16_states_become_fp32_on_the_host():
    """Offload and bf16 states are refused together."""
    half = TRAINING.model_copy(update={"optimizer_states": "bf16"})
    changes = {"optimizer_states": "fp32", "offload": "optimizer", "zero_stage": 1}
    assert nearest_training(half, lambda t: t.offload == "optimizer") == changes
    TrainingConfig.model_validate(half.model_dump() | changes)


def test_a_layout_knows_the_types_of_the_optimizers_states():
    layouts = [state_layout(TRAINING.model_copy(update={"optimizer_states": states})) for states in ("fp32", "bf16")]
    assert [(x.weight_bytes, x.master_bytes, x.moment_bytes) for x in layouts] == [(2, 4, 4), (2, 2, 2)]


def test_a_unit_of_work_is_halved_until_it_fits():
    assert [nearest_batch(100, lambda size, most=most: size <= most) for most in (100, 30, 1, 0)] == [100, 25, 1, None]
