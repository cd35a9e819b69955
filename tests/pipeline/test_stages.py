import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.config import parse_config
from raw2s.methods import method_of
from raw2s.pipeline.jsonl import read_jsonl, write_jsonl
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.weights import given_weights
from raw2s.tasks import task_of

GPT2, OPT, NEOX = ({"name": name, "model": f"tiny-{name}"} for name in ("gpt2", "opt", "gpt-neox"))
METHODS = [
    {"method": "single", "teacher": "opt"}, {"method": "naive"}, {"method": "joint"}, {"method": "bayesian"},
    {"method": "bayesian", "cdpo": True},
]  # fmt: skip
TREE = {
    "teachers": [GPT2, OPT],
    "student": {"model": "tiny-gpt-neox"},
    "methods": METHODS,
    "weights": {"loss": [1, 2], "joint": [1, 3], "preference": [1, 4]},
}
# The fifth student is the fourth followed by cDPO: its model is trained once, under the fourth's name.
STUDENTS = {"student/0-single-opt", "student/1-naive", "student/2-joint", "student/3-bayesian"}
PREFERENCE = {"pairs/4", "cdpo/4"}
HELD_OUT = {"validation", "testset"}
BEAMS = {"beams/gpt2", "beams/opt"}


def plan_of(seed=1, **sections):
    return plan_stages(parse_config(TREE | sections), seed)


def keys_of(**sections) -> dict[str, str]:
    return {stage.name: stage.key for stage in plan_of(**sections).in_order()}


def moved(**sections) -> set[str]:
    """The stages whose key another config changes, apart from the tests of changed models."""
    before, after = keys_of(), keys_of(**sections)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    models = {name.removeprefix("test/") for name in changed if name.startswith("test/")}
    assert models == {name for name in changed if f"test/{name}" in before}  # a test follows its model
    return changed - {f"test/{name}" for name in models}


def test_every_stage_of_the_run_is_planned():
    keys = keys_of()
    models = STUDENTS | {"teacher/gpt2", "teacher/opt", "ceiling", "cdpo/4"}
    others = {"split", "validation", "testset", "label", "pairs/4"} | BEAMS
    assert keys.keys() == models | {f"test/{name}" for name in models} | others


def test_class_labels_need_no_candidates():
    keys = keys_of(task={"name": "slurp_scenario"}, methods=METHODS[:-1])
    assert {"classes/gpt2", "classes/opt", "label"} <= keys.keys()
    assert not BEAMS & keys.keys()


def test_what_a_score_depends_on_is_in_the_key_where_the_score_judges():
    judged = {"student_training": {"judge": "score", "keep": "best"}}
    before = keys_of(**judged)
    longer = keys_of(**judged, labeling={"max_new_tokens": 32})
    changed = {name for name in before if before[name] != longer[name]}
    assert "ceiling" in changed and "teacher/gpt2" not in changed
    assert keys_of()["ceiling"] == keys_of(labeling={"max_new_tokens": 32})["ceiling"]


def test_every_stage_has_a_key_of_its_own():
    keys = keys_of(methods=METHODS[:-1])
    assert len(set(keys.values())) == len(keys)


def test_inputs_come_first():
    order = plan_of().in_order()
    position = {stage.name: place for place, stage in enumerate(order)}
    assert len(position) == len(order)
    for stage in order:
        for needed in stage.inputs.values():
            assert position[needed.name] < position[stage.name]


def test_what_the_student_is_told_does_not_label_again():
    assert moved(weights={}) == STUDENTS - {"student/0-single-opt"} | PREFERENCE
    assert moved(student_training={"epochs": 9}) == STUDENTS | PREFERENCE | {"ceiling"}
    assert moved(student_training={"epochs": 9}, ceiling_training={}) == STUDENTS | PREFERENCE
    louder = [{**method, "loss": {"gamma_max": 0.5}} for method in METHODS]
    assert moved(methods=louder) == STUDENTS | PREFERENCE
    assert moved(methods=[]) == set()
    assert moved(methods=METHODS[:2]) == set()


@pytest.mark.parametrize(
    ("use", "stages"),
    [
        ("loss", {"student/1-naive", "student/3-bayesian"} | PREFERENCE),
        ("joint", {"student/2-joint"}),
        ("preference", PREFERENCE),
    ],
)
def test_weights_change_only_the_methods_that_read_them(use, stages):
    assert moved(weights=TREE["weights"] | {use: [5, 1]}) == stages
    assert moved(weights=TREE["weights"] | {use: [7 * weight for weight in TREE["weights"][use]]}) == set()


@pytest.mark.parametrize(
    ("sections", "stages"),
    [
        ({"labeling": {"beams": 6}}, BEAMS | {"label"} | STUDENTS | PREFERENCE),
        ({"preference": {"beams": 6}}, PREFERENCE),
        ({"preference": {"prompts": 6}}, PREFERENCE),
        ({"preference": {"loss": {"beta": 6}}}, {"cdpo/4"}),
        ({"preference": {"training": {"learning_rate": 1e-6}}}, {"cdpo/4"}),
        ({"teacher_training": {"epochs": 9}}, {"teacher/gpt2", "teacher/opt", "label"} | BEAMS | STUDENTS | PREFERENCE),
        ({"teachers": [GPT2, OPT | {"learning_rate": 1e-5}]}, {"teacher/opt", "beams/opt", "label"} | STUDENTS | PREFERENCE),
        ({"teachers": [GPT2, OPT | {"backend": "ctranslate2"}]}, {"beams/opt", "label"} | STUDENTS | PREFERENCE),
        ({"ceiling_training": {"epochs": 9}}, {"ceiling"}),
        ({"student": {"model": "tiny-opt"}}, {"ceiling"} | STUDENTS | PREFERENCE),
    ],
)
def test_a_setting_changes_its_stage_and_what_follows(sections, stages):
    assert moved(**sections) == stages


def test_beams_at_test_time_change_the_tests_only():
    before, after = keys_of(), keys_of(evaluation={"beams": 3})
    assert {name for name in before if before[name] != after[name]} == {name for name in before if name.startswith("test/")}


@pytest.mark.parametrize(
    "sections", [{"task": {"n_teacher": 1999}}, {"task": {"name": "slurp_scenario"}, "methods": METHODS[:-1]}]
)
def test_another_split_changes_everything(sections):
    before, after = keys_of(), keys_of(**sections)
    same = {name for name in before.keys() & after.keys() if after[name] == before[name]}
    assert same <= HELD_OUT
    assert (same == HELD_OUT) == ("name" not in sections["task"])


def test_more_test_utterances_train_nothing_again():
    before, after = keys_of(), keys_of(task={"n_test": None})
    assert {name for name in before if before[name] != after[name]} == {
        "testset", *(name for name in before if name.startswith("test/")),
    }  # fmt: skip


def test_a_fixed_split_seed_draws_once_and_trains_anew():
    fixed = {"task": {"split_seed": 7}}
    one, two = plan_of(seed=1, **fixed), plan_of(seed=2, **fixed)
    same = {a.name for a, b in zip(one.in_order(), two.in_order(), strict=True) if a.key == b.key}
    assert same == HELD_OUT | {"split"}
    assert plan_of(seed=7).in_order()[1].key == one.in_order()[1].key


def test_a_seed_changes_everything_but_what_is_tested_on():
    one, two = plan_of(seed=1), plan_of(seed=2)
    assert [stage.name for stage in one.in_order()] == [stage.name for stage in two.in_order()]
    same = {before.name for before, after in zip(one.in_order(), two.in_order(), strict=True) if before.key == after.key}
    assert same == HELD_OUT


@pytest.mark.parametrize(
    "sections",
    [
        {"teachers": [GPT2 | {"num_cpus": 4}, OPT | {"replicas": [2, 3]}]},
        {"teachers": [GPT2 | {"resources": {"teaching": 1}}, OPT | {"label_selector": {"pool": "teach"}}]},
        {"labeling": {"max_rejected_fraction": 1}},
        {"student": {"model": "tiny-gpt-neox", "num_cpus": 4, "replicas": [2, 3]}},
        {"student_training": {"cpus_per_worker": 3, "gpus_per_worker": 1, "label_selector": {"pool": "train"}}},
        {"teacher_training": {"cpus_per_worker": 3, "gpus_per_worker": 1, "label_selector": {"pool": "in(teach, train)"}}},
        {"preference": {"training": {"gpus_per_worker": 1}}},
        {"ceiling_training": {"gpus_per_worker": 1}},
        {"ray": {"num_cpus": 64, "parallel_stages": 1}},
        {"name": "other", "storage": "elsewhere", "evaluation": {"resamples": 5}, "tracking": []},
    ],
)
def test_where_work_runs_is_in_no_key(sections):
    assert moved(**sections) == set()


def test_a_gpu_is_in_the_keys_only_for_its_half_precision():
    on_gpus = {"teachers": [GPT2 | {"num_gpus": 0.5}, OPT], "student": {"model": "tiny-gpt-neox", "num_gpus": 1}}
    before, after = keys_of(), keys_of(**on_gpus)
    changed = {name for name in before if before[name] != after[name]}
    assert {"beams/gpt2", "label", "test/teacher/gpt2", "test/ceiling"} <= changed
    assert not {"teacher/gpt2", "ceiling", "beams/opt", "test/teacher/opt"} & changed
    exact = {"labeling": {"precision": "fp32"}, "evaluation": {"precision": "fp32"}}
    assert keys_of(**exact) == keys_of(**exact, **on_gpus) == before


def test_the_order_of_the_teachers_is_in_the_key_of_what_it_orders():
    weights = {use: numbers[::-1] for use, numbers in TREE["weights"].items()}
    assert moved(teachers=[OPT, GPT2], weights=weights) == {"label"} | STUDENTS | PREFERENCE


def test_another_teacher_leaves_the_others():
    weights = {use: [*numbers, 1] for use, numbers in TREE["weights"].items()}
    more = moved(teachers=[GPT2, OPT, NEOX], weights=weights)
    assert more == {"label"} | STUDENTS | PREFERENCE  # what the others wrote stays; their scores of its texts are missing
    assert {"teacher/gpt-neox", "beams/gpt-neox"} <= keys_of(teachers=[GPT2, OPT, NEOX], weights=weights).keys()
    of_classes = {"task": {"name": "slurp_scenario"}, "methods": METHODS[:-1]}
    before, after = keys_of(**of_classes), keys_of(teachers=[GPT2, OPT, NEOX], weights=weights, **of_classes)
    assert [name for name in ("classes/gpt2", "classes/opt") if before[name] != after[name]] == []


def test_a_model_is_known_by_its_content(tmp_path):
    def teacher_key(vocabulary: int) -> str:
        (tmp_path / "config.json").write_text(f'{{"vocab_size": {vocabulary}}}')
        return keys_of(teachers=[GPT2, {"name": "opt", "model": str(tmp_path)}])["teacher/opt"]

    assert teacher_key(10) == teacher_key(10) != teacher_key(11)


def test_names_differ_between_seeds_and_not_for_one():
    several = parse_config(TREE | {"seeds": [1, 2, 3]})
    names = [stage.name for seed in several.seeds for stage in plan_stages(several, seed).in_order()]
    shared = sorted(name for name in set(names) if names.count(name) > 1)
    assert shared == ["testset", "validation"]  # no seed moves them
    assert {stage.key for stage in plan_stages(several, 1).in_order()} == set(keys_of().values())
    plan = plan_stages(several, 2)
    assert [test.name for test in plan.tests] == [
        *(f"test/teacher/{name}@2" for name in ("gpt2", "opt")),
        "test/ceiling@2",
        *(f"test/{name}@2" for name in (*sorted(STUDENTS), "cdpo/4")),
    ]


def test_preference_follows_its_own_student():
    plan = plan_of()
    first, second = plan.students[-2:]
    assert (first.name, second.name) == ("bayesian", "bayesian+cdpo")
    assert plan_of(preference={"loss": "cw_cdpo"}).students[-1].name == "bayesian+cw_cdpo"
    preferred = second.stage
    assert (preferred.pairs.kind, preferred.kind) == ("pairs", "cdpo")
    assert preferred.student is preferred.pairs.student.model is first.stage
    assert [s.model for s in preferred.pairs.scorers.values()] == [test.labeler.model for test in plan.teachers.values()]
    without = plan_of(methods=METHODS[:-1])
    assert not [stage for stage in without.in_order() if stage.kind in ("pairs", "cdpo")]
    # A student is one artifact with and without preference.
    assert plan.students[3].stage is plan.students[4].stage


def test_students_read_the_weights_of_their_method():
    config = parse_config(TREE)
    given = given_weights(config, task_of(config.task))
    single, naive, joint, bayesian, _ = (method_of(method).weights(method, given) for method in config.methods)
    assert single == {"gpt2": 0, "opt": 1}
    assert naive == bayesian == pytest.approx({"gpt2": 1 / 3, "opt": 2 / 3})
    assert joint == {"gpt2": 0.25, "opt": 0.75}


def test_an_entrys_own_values_are_its_own_alone():
    own = {
        "weights": {"loss": [5, 1], "preference": [1, 1]},
        "training": {"learning_rate": 0.5},
        "preference": {"training": {"epochs": 3}},
    }
    changed = [*METHODS[:1], METHODS[1] | {"training": own["training"]}, *METHODS[2:4], METHODS[4] | own]
    plan = plan_of(methods=changed)
    last = plan.students[-1].stage
    assert moved(methods=changed) == {"student/1-naive"} | PREFERENCE  # the fifth's student is no more the fourth's
    assert [plan.students[i].stage.training.learning_rate for i in (0, 1, 4)] == [1e-3, 0.5, 0.5]
    assert last.student.weights == pytest.approx({"gpt2": 5 / 6, "opt": 1 / 6})
    assert last.pairs.weights == {"gpt2": 0.5, "opt": 0.5}
    assert (last.training.epochs, last.training.learning_rate) == (3, 5e-5)
    said_again = [method | {"weights": TREE["weights"], "training": {"epochs": 3}} for method in METHODS]
    assert moved(methods=said_again) == set()


# Line ends of Unicode (U+0085, U+2028) inside a text end no line; a lone surrogate is what JSON "\ud800" of a model parses to.
@given(texts=st.lists(st.text() | st.sampled_from(["a\x85b", "a\u2028b", "\ud800", "a\nb"])))
def test_rows_survive_being_written(tmp_path_factory, texts):
    file = tmp_path_factory.getbasetemp() / "rows.jsonl"
    rows = [{"id": index, "output": text, "predicted": None, "gold": [["time", text]]} for index, text in enumerate(texts)]
    write_jsonl(file, rows)
    assert read_jsonl(file) == rows


CLASSES = {"task": {"name": "slurp_scenario"}, "methods": METHODS[:2]}


@pytest.fixture
def ann(tmp_path):
    """A teacher that is a file."""
    (tmp_path / "ann.csv").write_text("id,label\n1,alarm\n")
    return {"name": "ann", "kind": "labels", "file": str(tmp_path / "ann.csv")}


def test_a_label_file_is_neither_trained_nor_tested_nor_asked_for_scores(ann):
    plan = plan_of(teachers=[GPT2, ann], methods=[{"method": "joint", "cdpo": True}], weights={})
    stages = {stage.name: stage for stage in plan.in_order()}
    assert {"labels/ann", "beams/gpt2", "teacher/gpt2"} <= stages.keys()
    assert not {"teacher/ann", "beams/ann", "test/teacher/ann"} & stages.keys()
    assert stages["label"].inputs.keys() == {"split", "answers/gpt2", "answers/ann", "scorers/gpt2/model"}
    assert stages["pairs/0"].inputs.keys() == {"split", "student/model", "scorers/gpt2/model"}
    assert stages["pairs/0"].settings["weights"] == stages["student/0-joint"].settings["weights"] == {"gpt2": 1}


def test_a_label_file_is_known_by_its_content(ann, tmp_path):
    sections = CLASSES | {"weights": {}, "methods": [{"method": "naive"}]}
    before = keys_of(teachers=[GPT2, ann], **sections)
    moved_file = (tmp_path / "ann.csv").rename(tmp_path / "moved.csv")
    assert keys_of(teachers=[GPT2, ann | {"file": str(moved_file)}], **sections) == before
    moved_file.write_text("id,label\n1,audio\n")
    after = keys_of(teachers=[GPT2, ann | {"file": str(moved_file)}], **sections)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"labels/ann", "label", "student/0-naive", "test/student/0-naive"}


def test_files_alone_are_planned_without_a_model_teacher(ann):
    names = keys_of(**CLASSES | {"teachers": [ann, ann | {"name": "bob"}], "weights": {}, "methods": [{"method": "naive"}]})
    assert not [name for name in names if name.startswith(("teacher/", "classes/", "test/teacher"))]


def test_what_is_fitted_on_devel_is_made_only_for_those_who_read_it():
    sections = CLASSES | {"methods": [*METHODS[:2], {"method": "mace"}]}
    before = keys_of(**sections)
    assert "combine/mace" in before
    assert not [name for name in before if name.startswith(("devel/", "fit"))]
    weighted = keys_of(**sections, weights=TREE["weights"] | {"loss": "devel"})
    assert {"devel/gpt2", "devel/opt", "fit"} == weighted.keys() - before.keys()
    assert {n for n in before if before[n] != weighted[n]} == {"student/1-naive", "test/student/1-naive"}
    texts, read = keys_of(), keys_of(weights=TREE["weights"] | {"loss": "devel"})
    assert read.keys() - texts.keys() == {"fit"}, "texts need scores alone"
    assert {n for n in texts if texts[n] != read[n] and n.startswith("student/")} == {"student/1-naive", "student/3-bayesian"}
    calibrated = keys_of(**sections, labeling={"calibrate": "temperature"})
    assert {n for n in before if before[n] != calibrated[n] and not n.startswith("test/")} == {
        "student/0-single-opt", "student/1-naive",
    }  # fmt: skip
