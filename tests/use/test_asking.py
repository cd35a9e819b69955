"""Whom to ask about: against sorting all rows."""

from hypothesis import given
from hypothesis import strategies as st

from raw2s.use.asking import MostDoubtful

PROBABILITIES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


@given(probabilities=PROBABILITIES, data=st.data())
def test_the_least_probable_texts_are_kept_and_each_is_asked_about_once(probabilities, data, tmp_path_factory):
    texts = data.draw(st.lists(st.integers(0, len(probabilities) - 1), min_size=1, max_size=30))
    count = data.draw(st.integers(1, 5))
    asked = MostDoubtful(count=count, file=tmp_path_factory.getbasetemp() / "ask.jsonl")
    for row, text in enumerate(texts):
        asked.see({"row": row, "id": row, "prompt": str(text), "answer": "a", "probability": probabilities[text]})
    once = sorted(dict.fromkeys(texts), key=lambda text: (asked_as(probabilities[text]), texts.index(text)))
    assert {row["prompt"] for _, _, row in asked.kept} == {str(text) for text in once[:count]}
    assert len(asked.kept) == len(asked.prompts) == min(count, len(once))


def asked_as(probability: float) -> float:
    """Probabilities that a float's logarithm tells apart from 0."""
    return max(probability, 2.0**-1074)
