"""Why a stage failed, out of the tracebacks that Ray carries as text."""

import re

WRAPPERS = ("RayTaskError", "UserCodeException", "TrainingFailedError", "WorkerGroupError", "ControllerError")
"""Errors that Ray puts around a worker's own."""
MAKE_ROOM = "make room, and run the same command again, which goes on from what is finished"
"""What to do about a full disk."""
NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|disk is full|inline_container\.cc:\d+\] \. unexpected pos"
)
"""What the system, SQLite and `torch.save` say of a disk that is full."""


def cause(error: BaseException) -> str:
    """The worker's own error, as `Type: message`: the first in the tracebacks that Ray carries as text, or what Ray says of its death."""
    named = re.findall(r"^\s*(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception)): (\S.*)$", _text(error), re.MULTILINE)
    own = [f"{name}: {message}" for name, message in named if name not in WRAPPERS]
    if own:
        return own[0]
    lines = (str(error).strip() or repr(error)).splitlines()
    ends_with_why = type(error).__module__.startswith("ray.")  # after what ran, and where
    told = lines[-1] if ends_with_why else lines[0]
    return f"{type(error).__name__}: {told.strip()}"


def is_full_disk(error: BaseException) -> bool:
    """Whether it is a write that found no room, here or in a worker."""
    return NO_ROOM.search(_text(error)) is not None


def _text(error: BaseException) -> str:
    """What all errors of the chain say."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__
    return "\n".join(str(e) for e in chain)
