"""What a run says of the ground truth that it sees."""

import pytest

from raw2s.config import parse_config
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.truth import truth_used

SMALL = {
    "task": {"name": "slurp_scenario", "n_teacher": 30, "n_student": 20, "n_validation": 10, "n_test": 10},
    "teachers": [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt"}],
    "student": {"model": "tiny-llama"},
    "methods": [{"method": "naive"}],
}


def said(**changes):
    config = parse_config(SMALL | changes)
    return truth_used(config, plan_stages(config, 1))


def test_who_learns_from_which_truth_and_what_the_models_have_read_before():
    of_a, of_b, devel, before = said()
    assert of_a == "A's ground truth (30 examples) trains gpt2 and opt."
    assert of_b == "B's (20) trains the ceiling and no student."
    assert devel == "Devel's (10) chooses the teachers' epochs."
    assert before == (
        "Before, on SLURP's train split outside A, B, devel and test: tiny-gpt2, tiny-opt read sentences with their gold slots in "
        "brackets; tiny-llama read sentences followed by their gold slots, scenario and action."
    )


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"teacher_training": {"keep": "last"}}, "nothing in this run"),
        ({"student_training": {"keep": "best"}}, "the teachers' epochs, the students' epochs and the ceiling's epoch"),
        ({"weights": {"loss": "devel"}}, "the teachers' epochs and the teachers' weights"),
        ({"labeling": {"calibrate": "temperature"}}, "the teachers' epochs and the teachers' temperatures"),
        ({"weights": {"loss": "devel"}, "methods": [{"method": "majority"}]}, "the teachers' epochs"),
        ({"methods": [{"method": "naive", "training": {"keep": "best"}}]}, "the teachers' epochs and the students' epochs"),
    ],
)
def test_what_devel_chooses_is_said_and_no_more(changes, chosen):
    assert said(**changes)[2] == f"Devel's (10) chooses {chosen}."


def test_a_teacher_as_it_is_trains_on_nothing_and_may_be_shown_examples():
    teachers = [SMALL["teachers"][0], {"name": "asked", "model": "tiny-opt", "fine_tune": False, "shots": 2}]
    assert said(teachers=teachers)[0] == "A's ground truth (30 examples) trains gpt2 and gives asked examples."
