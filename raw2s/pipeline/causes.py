"""Why a stage failed, out of the tracebacks that Ray carries as text."""

import re

WRAPPERS = ("RayTaskError", "UserCodeException", "TrainingFailedError", "WorkerGroupError", "ControllerError")
"""Errors that Ray puts around a worker's own."""


def cause(error: BaseException) -> str:
    """The worker's own error, as `Type: message`: the first in the tracebacks that Ray carries as text."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__
    text = "\n".join(str(e) for e in chain)
    named = re.findall(r"^\s*(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception)): (\S.*)$", text, re.MULTILINE)
    own = [f"{name}: {message}" for name, message in named if name not in WRAPPERS]
    return own[0] if own else f"{type(error).__name__}: {(str(error) or repr(error)).splitlines()[0]}"
