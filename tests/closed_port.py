"""An address of this machine at which nothing answers."""

import socket

_BOUND = socket.socket()
_BOUND.bind(("127.0.0.1", 0))  # and never listened at: connecting is refused, and nobody else gets the port meanwhile
NOBODY = f"127.0.0.1:{_BOUND.getsockname()[1]}"
