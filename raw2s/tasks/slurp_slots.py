"""SLURP slot filling as text generation: the utterance in, a JSON object of slots out (paper, section 5.1, App. F)."""

import json
from functools import partial
from typing import Literal

from raw2s.evaluation.metrics import SLU_F1
from raw2s.tasks.slurp import CREDIT, Row, SlurpSection, draw_examples, held_out_examples
from raw2s.tasks.task import Example, Task, TaskKind

SLOT_TYPES = (
    "event_name", "date", "person", "time", "news_topic", "relation", "list_name", "media_type", "business_name",
    "weather_descriptor", "music_genre", "house_place", "game_name", "food_type", "timeofday", "place_name",
    "definition_word", "email_address", "transport_agency", "movie_name", "artist_name", "transport_type", "joke_type",
    "movie_type", "time_zone", "music_descriptor", "device_type", "color_type", "meal_type", "player_setting",
    "podcast_name", "email_folder", "song_name", "change_amount", "business_type", "personal_info", "radio_name",
    "coffee_type", "audiobook_author", "audiobook_name", "currency_name", "playlist_name", "podcast_descriptor",
    "general_frequency", "music_album", "app_name", "order_type", "transport_name", "transport_descriptor",
    "cooking_type", "ingredient", "alarm_type", "drink_type", "sport_type", "game_type",
)  # fmt: skip
"""The 55 slot types in the order of the paper's prompt (App. F)."""

_LIST = ", ".join(f'"{slot}"' for slot in SLOT_TYPES)
PROMPTS = {
    "short": "{text}\n",
    "paper": (
        f"USER: Consider the following list of slot types provided to you:\n\n{_LIST}\n\nNow consider the following "
        "sentence(s) containing one or more of the above slot types. Can you extract slots belonging to that slot list "
        'and their values in json format i.e. {{"slot type": "value"}}? ONLY print out the json, or only print {{}} if '
        'no slot.\n\n"{text}"\n\nASSISTANT:'
    ),
}
JOIN = " & "
"""Between the values of a slot type that occurs more than once, as the authors write it."""


def slot_target(row: Row, prompt: str) -> str:
    """`{"time": "nine am", "person": "ann & bob"}`: slots in their order, repeated types joined; `{}` when there is none.

    With the short prompt the punctuation stands apart, `{ "time" : "nine am" }`. Confidence is shared out word by word
    (Eq. 7-8), and a small teacher's doubt about a slot should not spill over to the bracket or the colon glued to it.
    """
    values: dict[str, list[str]] = {}
    for kind, value in row["entities"]:
        values.setdefault(kind, []).append(value)
    if prompt == "paper" or not values:
        return json.dumps({kind: JOIN.join(own) for kind, own in values.items()}, ensure_ascii=False)
    slots = (f"{json.dumps(kind)} : {json.dumps(JOIN.join(own), ensure_ascii=False)}" for kind, own in values.items())
    return f"{{ {' , '.join(slots)} }}"


def parse_slots(text: str) -> list[list[str]] | None:
    """The (type, value) pairs a model wrote; None when it is not a JSON object of strings.

    Types outside the 55 are dropped, as the authors' scoring script does.
    """
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):  # not only JSONDecodeError: a number may have too many digits
        return None
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs):
        return None
    return [[kind, value] for kind, joined in pairs if kind in SLOT_TYPES for value in joined.split(JOIN)]


class SlotsSection(SlurpSection):
    name: Literal["slurp_slots"] = "slurp_slots"
    """Slot filling as generation: the utterance in, a JSON object of slots out (SLU-F1)."""
    prompt: Literal["short", "paper"] = "short"
    """The prompt: the bare utterance, or the paper's (App. F)."""


def _example(row: Row, prompt: str) -> Example:
    return Example(
        id=row["id"], prompt=PROMPTS[prompt].format(text=row["text"]), target=slot_target(row, prompt), gold=row["entities"]
    )


def _make(section: SlotsSection) -> Task:
    example = partial(_example, prompt=section.prompt)
    return Task(
        name=section.name,
        form="text",
        classes=(),
        metric=SLU_F1,
        parse=parse_slots,
        nothing=[],
        draw=partial(draw_examples, section, example),
        held_out=partial(held_out_examples, section, example),
        credit=CREDIT,
        template=PROMPTS[section.prompt],
    )


SLURP_SLOTS = TaskKind(section=SlotsSection, make=_make)
