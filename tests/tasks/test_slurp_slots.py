import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.evaluation import slu_f1
from raw2s.tasks.slurp import load_slurp
from raw2s.tasks.slurp_slots import JOIN, PROMPTS, SLOT_TYPES, parse_slots, slot_target

SOURCES = ("train", "devel", "test", "nlu_eval_extra")

fillers = st.text("abc &", min_size=1, max_size=6).filter(lambda filler: JOIN not in f" {filler} ")
slots = st.lists(st.tuples(st.sampled_from(SLOT_TYPES), fillers).map(list), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(SLOT_TYPES) | st.text(), inner),
)


@functools.cache
def all_rows():
    return [row for source in SOURCES for row in load_slurp(source)]


def by_type(entities) -> dict[str, list[str]]:
    """The fillers of each type in order."""
    return {kind: [filler for other, filler in entities if other == kind] for kind, _ in entities}


def test_the_slot_types_are_those_of_the_data():
    assert len(SLOT_TYPES) == len(set(SLOT_TYPES)) == 55
    assert {kind for row in all_rows() for kind, _ in row["entities"]} == set(SLOT_TYPES)


def test_targets_keep_every_slot_and_the_order_within_a_type():
    rows = all_rows()
    # "r. & b." is the one value in the data that holds the separator.
    torn = [row for row in rows if any(JOIN in filler for _, filler in row["entities"])]
    assert {filler for row in torn for _, filler in row["entities"] if JOIN in filler} == {"r. & b."}
    assert len(torn) < len(rows) / 1000
    assert any(len(by_type(row["entities"])) < len(row["entities"]) for row in rows)
    for row in rows:
        if row not in torn:
            assert by_type(parse_slots(slot_target(row, "short"))) == by_type(row["entities"])


@given(slots)
def test_any_slots_survive_writing_and_parsing(entities):
    parsed = parse_slots(slot_target({"entities": entities}, "short"))
    assert by_type(parsed) == by_type(entities)
    assert sorted(parsed) == sorted(entities)


@pytest.mark.parametrize("source", SOURCES)
def test_the_gold_answer_scores_one(source):
    gold = [row["entities"] for row in load_slurp(source) if not any(JOIN in filler for _, filler in row["entities"])]
    assert slu_f1(gold, [parse_slots(slot_target({"entities": entities}, "short")) for entities in gold]) == (1, 1, 1)


def test_a_target_is_the_json_of_the_paper():
    row = {"entities": [["person", "ann"], ["time", "3 and 45 pm"], ["person", "zoë"]]}
    assert slot_target(row, "paper") == '{"person": "ann & zoë", "time": "3 and 45 pm"}'
    assert slot_target(row, "short") == '{ "person" : "ann & zoë" , "time" : "3 and 45 pm" }'
    assert slot_target({"entities": []}, "short") == "{}"
    assert parse_slots("{}") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "time: nine", '{"time": "nine"', '{"time": "nine"} {}', '{"time": 9}', '{"time": null}', '{"time": ["nine"]}',
        '{"time": {"date": "nine"}}', '{"time": "nine", "date": 3}', "[]", '["time"]', '[["time", "nine"]]', '[{"time": "nine"}]',
        '"time"', "null", "9", "NaN", "[" * 100_000, '{"time":' * 100_000, "9" * 5_000, '{"time": ' + "9" * 5_000 + "}",
    ],
    ids=lambda text: f"{len(text)}:{text[:24]}",
)  # fmt: skip
def test_what_is_no_object_of_strings_is_none(text):
    assert parse_slots(text) is None


@given(st.text() | json_values.map(json.dumps) | st.text('{}[]":, abc\\u0d', max_size=30))
def test_no_text_makes_the_parser_raise(text):
    parsed = parse_slots(text)
    assert parsed is None or all(kind in SLOT_TYPES and isinstance(filler, str) for kind, filler in parsed)


def test_types_of_ones_own_are_dropped_and_repeated_keys_kept():
    assert parse_slots('{"colour": "red", "time": "nine"}') == [["time", "nine"]]
    assert parse_slots('{"time": "nine", "date": "may", "time": "ten & noon"}') == [
        ["time", "nine"], ["date", "may"], ["time", "ten"], ["time", "noon"],
    ]  # fmt: skip


def test_prompts_hold_the_utterance_as_it_is():
    text = 'wake me up at {nine} "am"'
    assert PROMPTS["short"].format(text=text) == f"{text}\n"
    paper = PROMPTS["paper"].format(text=text)
    assert f'\n\n"{text}"\n\nASSISTANT:' in paper
    assert 'i.e. {"slot type": "value"}?' in paper
    assert "only print {} if no slot" in paper
    assert json.loads(f"[{paper.split('to you:')[1].split('Now consider')[0]}]") == list(SLOT_TYPES)
