"""Files of labels: the three formats say the same, annotators are combined, and what cannot be used is named in one line."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.labels.label_files import class_probabilities, file_fingerprint, ranked_texts, read_label_file

CLASSES = ("alarm", "calendar", "music")
FORMATS = [".jsonl", ".csv", ".parquet"]


def write(file, rows):
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            plain = [{k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()} for row in rows]
            writer.writerows(plain)
    return file


def read(tmp_path, rows, classes=CLASSES, suffix=".jsonl"):
    return read_label_file(write(tmp_path / f"labels{suffix}", rows), classes)


@pytest.mark.parametrize("suffix", FORMATS)
def test_hard_labels_are_one_hot_and_annotators_are_averaged(tmp_path, suffix):
    rows = [
        {"id": 3, "annotator": "ann", "label": "music"},
        {"id": 3, "annotator": "bob", "label": "alarm"},
        {"id": -8, "annotator": "ann", "label": "calendar"},
        {"id": 5, "annotator": "bob", "label": None},  # not labeled
    ]
    annotations = read(tmp_path, rows, suffix=suffix)
    assert [(a.id, a.annotator) for a in annotations] == [(3, "ann"), (3, "bob"), (-8, "ann")]
    assert class_probabilities(annotations) == {3: [0.5, 0, 0.5], -8: [0, 1, 0]}


@pytest.mark.parametrize("suffix", FORMATS)
def test_probabilities_come_as_a_list_or_by_class(tmp_path, suffix):
    expected = {1: pytest.approx([0.2, 0.3, 0.5]), 2: pytest.approx([0, 0.25, 0.75])}
    rows = [{"id": 1, "probabilities": [0.2, 0.3, 0.5]}, {"id": 2, "probabilities": [0.0, 0.25, 0.75]}]
    assert class_probabilities(read(tmp_path, rows, suffix=suffix)) == expected
    rows = [
        {"id": 1, "probabilities": {"music": 0.5, "alarm": 0.2, "calendar": 0.3}},
        {"id": 2, "probabilities": {"calendar": 0.25, "music": 0.75}},
    ]
    assert class_probabilities(read(tmp_path, rows, suffix=suffix)) == expected


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_most_frequent_text_is_first_and_of_equals_the_first(tmp_path, suffix):
    texts = ["at nine", '{ "time" : "nine" }', "zoë\nnine", '{ "time" : "nine" }', "at nine", '{ "time" : "nine" }']
    rows = [{"id": 1, "annotator": str(n), "text": text} for n, text in enumerate(texts)]
    rows += [{"id": 2, "annotator": str(n), "text": text} for n, text in enumerate(["b", "a"])]
    ranked = ranked_texts(read(tmp_path, rows, (), suffix))
    assert ranked == {1: ['{ "time" : "nine" }', "at nine", "zoë\nnine"], 2: ["b", "a"]}


def test_an_empty_text_is_an_answer_except_in_csv(tmp_path):
    rows = [{"id": 1, "text": ""}, {"id": 2, "text": "a"}]
    assert [len(ranked_texts(read(tmp_path, rows, (), suffix))) for suffix in FORMATS] == [2, 1, 2]


def test_other_columns_are_not_read(tmp_path):
    rows = [{"id": 1, "label": "music", "text": "play jazz", "note": "unsure"}]
    assert class_probabilities(read(tmp_path, rows)) == {1: [0, 0, 1]}


def test_labels_may_be_numbers_where_the_classes_are(tmp_path):
    assert class_probabilities(read(tmp_path, [{"id": 1, "label": 1}], ("0", "1"))) == {1: [0, 1]}


rows_of_labels = st.dictionaries(
    st.tuples(st.integers(-9, 9), st.sampled_from("abc")), st.sampled_from([*CLASSES, None]), min_size=1, max_size=20
)


@given(rows_of_labels)
def test_every_label_counts_once_whatever_the_order(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    rows = [{"id": i, "annotator": annotator, "label": label} for (i, annotator), label in labels.items()]
    combined = class_probabilities(read(folder, rows))
    assert combined == class_probabilities(read(folder, rows[::-1]))
    for i in {i for i, _ in labels}:
        own = [label for (item, _), label in labels.items() if item == i and label is not None]
        assert (i in combined) == bool(own)
        if own:
            assert combined[i] == pytest.approx([own.count(name) / len(own) for name in CLASSES])


MISTAKES = {
    "no id": ([{"label": "music"}], "needs a column id and one column label or probabilities, and has label"),
    "no answer": ([{"id": 1, "text": "music"}], "needs a column id and one column label or probabilities, and has id, text"),
    "two answers": ([{"id": 1, "label": "music", "probabilities": [0, 0, 1]}], "and has id, label, probabilities; name them so"),
    "a class nearly right": (
        [{"id": 1, "label": "calender"}],
        "row 1: 'calender' is no class of the task; did you mean calendar?",
    ),
    "no class": (
        [{"id": 1, "label": "music"}, {"id": 2, "label": "x"}],
        "row 2: 'x' is no class of the task; name one of alarm,",
    ),
    "no class by name": ([{"id": 1, "probabilities": {"muzak": 1.0}}], "row 1: 'muzak' is no class of the task"),
    "an item twice": ([{"id": 1, "label": "music"}] * 2, "row 2: id 1 occurs twice; remove one, or add a column annotator"),
    "an annotator twice": (
        [{"id": 1, "annotator": "ann", "label": "music"}] * 2,
        "row 2: id 1 occurs twice for annotator ann; remove one",
    ),
    "a name for an id": ([{"id": "seven", "label": "music"}], "row 1: 'seven' is no id, which is a whole number; correct it"),
    "yes for an id": ([{"id": True, "label": "music"}], "row 1: True is no id, which is a whole number; correct it"),
    "an id that no table holds": ([{"id": 2**63, "label": "music"}], f"row 1: {2**63} is no id"),
    "half an id": ([{"id": 1.5, "label": "music"}], "row 1: 1.5 is no id"),
    "an id missing": ([{"id": 1, "label": "music"}, {"label": "music"}], "row 2: None is no id"),
    "too few probabilities": ([{"id": 1, "probabilities": [0.5, 0.5]}], "row 1: the probabilities are not 3 numbers"),
    "a sum of 2": ([{"id": 1, "probabilities": [1, 1, 0]}], "that sum to 1: they are 3, and sum to 2; correct them"),
    "less than nothing": ([{"id": 1, "probabilities": [1, 1, -1]}], "of at least 0"),
    "no numbers": ([{"id": 1, "probabilities": "many"}], "row 1: the probabilities are not 3 numbers"),
    "no rows": ([], "holds no row; give labels, or remove the teacher"),
}


@pytest.mark.parametrize(("rows", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_row_and_what_to_do(tmp_path, rows, says):
    with pytest.raises(ValueError, match=r"labels\.jsonl: ") as caught:
        read(tmp_path, rows)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_text_is_a_string(tmp_path):
    with pytest.raises(ValueError, match="row 1: the text is 9; write it as a string"):
        read(tmp_path, [{"id": 1, "text": 9}], ())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"id": 1, "label": "music"}\n\n{', "a.jsonl: row 3: not JSON (Expecting"),
        ("a.jsonl", "[1]\n", "row 1: a list and no JSON object"),
        ("a.parquet", "id,label\n", "cannot be read"),
        ("a.txt", "id,label\n", "ends in none of .jsonl, .csv, .parquet"),
        ("a.csv", "", "holds no row"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_label_file(tmp_path / name, CLASSES)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*none.csv.*; correct the path"):
        read_label_file(tmp_path / "none.csv", CLASSES)


def test_a_file_is_known_by_its_content_alone(tmp_path):
    one, other = (write(tmp_path / name, [{"id": 1, "label": "music"}]) for name in ("a.jsonl", "b.jsonl"))
    assert file_fingerprint(one) == file_fingerprint(other)
    write(other, [{"id": 2, "label": "music"}])
    assert file_fingerprint(one) != file_fingerprint(other)
