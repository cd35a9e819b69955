"""What a local Ray is told, so that its workers are forked."""

import shlex
import sys
import tempfile
import uuid
from pathlib import Path


def forked_workers() -> dict[str, str]:
    """Part of a runtime environment; empty where workers start as Ray starts them: off Linux, and with GPUs, where it has not been tried."""
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        return {}
    client, folder = Path(__file__).with_name("client.py"), Path(tempfile.gettempdir()) / f"raw2s-{uuid.uuid4().hex}"
    return {"py_executable": shlex.join([sys.executable, "-S", "-E", str(client), str(folder)])}
