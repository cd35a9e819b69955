"""Whether a model can be loaded: it is where its name says, its files are there, and none is cut short. One line says what is not."""

import difflib
import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from raw2s.models.load import load_model_config, load_tokenizer
from raw2s.models.source import BUILTIN_FOLDER, model_source

HUB_SECONDS = 5.0
"""For the hub to answer at all; its own client tries for half a minute."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
"""Files of which a tokenizer has at least one."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_HUB = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def model_problem(name: str) -> str | None:
    """What keeps the model from being loaded, and what to do; None where nothing is known to. Asks the hub for what is no folder."""
    source = model_source(name)
    if Path(source).is_dir():
        return _folder_problem(Path(source))
    path = Path(name)
    if not _HUB.fullmatch(name) or (len(path.parts) > 1 and path.parent.is_dir()):
        return f"no folder {name!r}; name a built-in model, a folder or a hub id org/name"
    builtin = [folder.name for folder in BUILTIN_FOLDER.iterdir()]
    if close := difflib.get_close_matches(name, builtin, n=1, cutoff=0.8):
        return f"no model {name!r}; did you mean {close[0]}?"
    try:
        _require_hub(name)
        load_model_config(name)
    except Exception as error:  # the hub's library raises whatever its transport does
        return f"no model {name!r} ({_reason(error)}); name a built-in model, a folder or a reachable hub id"
    return None


def _folder_problem(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        return f"{folder} has no config.json; name a folder that save_pretrained has written"
    try:
        load_model_config(str(folder))
    except (OSError, ValueError) as error:
        return f"{folder} has a config.json that cannot be read ({_reason(error)}); write it anew"
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"{folder} has no tokenizer; save the model's own there with save_pretrained"
    try:
        tokenizer = load_tokenizer(str(folder))
    except Exception as error:  # tokenizers raises nothing narrower
        return f"{folder} has a tokenizer that cannot be read ({_reason(error.__cause__ or error)}); save it anew"
    if not tokenizer.is_fast:
        return f"{folder} has a slow tokenizer, which gives no character offsets; save a fast one there (tokenizer.json)"
    try:
        files = _weight_files(folder)
    except (OSError, ValueError, KeyError, AttributeError):
        return f"{folder / INDEX} cannot be read; write it anew"
    for file in files:
        if not file.is_file():
            return f"{folder} has no {file.name}; save the weights as safetensors, which alone are read"
        try:
            with safe_open(file, framework="pt"):  # reads the header, which tells the file's length
                pass
        except (OSError, SafetensorError) as error:
            return f"{file} is cut short or damaged ({_reason(error)}); copy it again"
    return None


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def _require_hub(name: str) -> None:
    """Raise whatever the transport does where the hub is needed and does not answer."""
    from huggingface_hub import constants, get_session, try_to_load_from_cache  # half a second to import  # noqa: PLC0415

    if not constants.HF_HUB_OFFLINE and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
