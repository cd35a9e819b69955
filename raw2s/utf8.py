"""Text files as UTF-8; what is not is named by its line."""

from pathlib import Path


def read_utf8(file: Path) -> str:
    """The file's text, its line ends as they are, without a byte order mark. Raises OSError, and ValueError in one line."""
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from None
