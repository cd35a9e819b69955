"""Prompts as ids: plain text, or a user's message in the tokenizer's chat template."""

import pytest

from raw2s.decoding.tokens import encode_prompt
from raw2s.models.load import load_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def tokenizer():
    return load_tokenizer("tiny-llama")


def test_a_chat_prompt_is_the_template_up_to_the_answer(tokenizer):
    tokenizer.chat_template = TEMPLATE
    ids = encode_prompt(tokenizer, "is it true?", chat=True)
    assert tokenizer.decode(ids) == "<s>[user] is it true?</s>[assistant]"
    assert ids.count(tokenizer.bos_token_id) == 1  # the template's own: nothing is prepended again
    assert all(type(i) is int for i in ids)


def test_a_prompt_of_text_does_not_see_the_template(tokenizer):
    plain = encode_prompt(tokenizer, "is it true?")
    tokenizer.chat_template = TEMPLATE
    assert encode_prompt(tokenizer, "is it true?") == plain


def test_a_tokenizer_without_a_template_is_refused_for_chat(tokenizer):
    with pytest.raises(ValueError, match=r"tiny-llama' has no chat template; set task\.chat: false"):
        encode_prompt(tokenizer, "is it true?", chat=True)
