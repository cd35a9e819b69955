"""A student's folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi

from raw2s.models.source import PLAIN_FILES
from raw2s.use.sheet import read_sheet


def publish(folder: Path, repository: str) -> str:
    """Upload the folder's model, sheet and card to `repository` (`org/name`), made private where it is new; returns its address.

    The token is the environment's `HF_TOKEN`, or that of `hf auth login`. Raises ValueError, in one line, for a folder without
    `raw2s.json`, and where the hub refuses.
    """
    read_sheet(folder)
    hub = HfApi()
    try:
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(PLAIN_FILES))
    except Exception as error:  # the hub's library raises whatever its transport does
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{repository}: the hub does not take it ({reason}); set HF_TOKEN to a token that may write there, and check the name"
        ) from None
    return str(address)
