"""Text to ids and back: the one rule that training, labeling and evaluation share.

A sequence is `encode_prompt(prompt) + encode_target(target)`: the two parts are tokenized apart, so the ids of a target never
depend on the prompt before it.
"""

from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool = False) -> list[int]:
    """Ids of `prompt` after the special tokens the tokenizer prepends (BOS for OPT and Llama), never an end marker.

    With `chat` the prompt is a user's message, and the ids are those of the tokenizer's chat template up to where the assistant
    begins to answer. Raises ValueError for a slow tokenizer, for one without a chat template where it is asked for, and for a
    prompt of no tokens: the first target token would have nothing before it.
    """
    _require_fast(tokenizer)
    if chat:
        return _encode_message(tokenizer, prompt)
    encoding = tokenizer(prompt)
    ids: list[int] = encoding["input_ids"]
    # sequence_ids is None for what the tokenizer added around the text: keep what it added before, drop what it added after.
    text_positions = [position for position, part in enumerate(encoding.sequence_ids()) if part is not None]
    if not text_positions:
        raise ValueError(f"the prompt {prompt!r} has no tokens: give the model at least one word to go on")
    return ids[: text_positions[-1] + 1]


def encode_target(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of `text` with the end marker appended, and the character span (start, end) of every piece in `text`.

    The tokenizer adds nothing else; the end marker's span is (len(text), len(text)). Pieces of one character's bytes share its
    span, and a piece of spaces only may have an empty one.
    Raises ValueError for a tokenizer that is slow (no offsets) or has no `eos_token`.
    """
    _require_fast(tokenizer)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"tokenizer {tokenizer.name_or_path!r} has no eos_token to end a target with: set tokenizer.eos_token")
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(start, end) for start, end in encoding["offset_mapping"]]
    return [*encoding["input_ids"], tokenizer.eos_token_id], [*offsets, (len(text), len(text))]


def decode_target(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text of generated `ids`: special tokens skipped, spaces as they are, both ends stripped."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills a batch: the pad token or, for a tokenizer without one (GPT-2, Llama), the end marker.

    Only ever read together with an attention mask. Raises ValueError when the tokenizer has neither.
    """
    token_id: int | None = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if token_id is not None:
        return token_id
    raise ValueError(f"tokenizer {tokenizer.name_or_path!r} has neither pad_token nor eos_token: set tokenizer.eos_token")


POSITIONS = ("max_position_embeddings", "max_seq_len")
"""What configs call it; the second is MPT's name."""


def positions_of(config: PreTrainedConfig) -> int | None:
    """How many tokens the model has positions for; None where there is no end of them, as in BLOOM."""
    sizes = config.get_text_config()
    return next((limit for name in POSITIONS if (limit := getattr(sizes, name, None))), None)


def check_context(config: PreTrainedConfig, tokens: int, what: str) -> None:
    """Raise ValueError, naming `what`, when `tokens` tokens are more than the model has positions."""
    limit = positions_of(config)
    if limit is not None and tokens > limit:
        name = next(name for name in POSITIONS if getattr(config.get_text_config(), name, None))
        raise ValueError(
            f"{what}: {tokens} tokens do not fit the {limit} positions ({name}) of "
            f"{config.name_or_path or config.model_type}; shorten the text or the number of new tokens"
        )


def _encode_message(tokenizer: PreTrainedTokenizerBase, message: str) -> list[int]:
    if tokenizer.chat_template is None:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template; set task.chat: false, or give a model that was made for chat"
        )
    ids: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], add_generation_prompt=True, return_dict=False
    )
    return list(ids)


def _require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} gives no character offsets: load a fast tokenizer (a tokenizer.json)")
