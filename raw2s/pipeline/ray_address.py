"""RAY_ADDRESS, looked at before Ray is: a cluster that does not answer would keep Ray waiting for a quarter of an hour."""

import socket
from urllib.parse import urlsplit

from raw2s.errors import ConfigError

CONNECT_SECONDS = 5.0
RAYS_OWN = ("auto", "local")
"""Words that Ray takes for an address, and looks up by itself."""


def check_ray_address(address: str | None) -> None:
    """Raise ConfigError, with what to do, where `address` (host:port, ray://host:port) is none of Ray's or nobody answers there."""
    if not address or address in RAYS_OWN:
        return
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS: {address} is the jobs' server, which takes `ray job submit` alone; submit the job to it, or set "
            "RAY_ADDRESS to the cluster's host:port, by default port 6379"
        )
    try:
        parts = urlsplit(f"//{address.removeprefix('ray://')}")
        host, port = parts.hostname, parts.port
    except ValueError:  # the port is no number
        host = port = None
    if host is None or port is None:
        raise ConfigError(f"RAY_ADDRESS: {address!r} is no host:port; correct it, or unset it to start a local Ray")
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(no_ray_at(address, error)) from None


def no_ray_at(address: str, error: Exception) -> str:
    """One line for a cluster that cannot be joined."""
    reason = " ".join(str(error).split()) or type(error).__name__  # Ray tells unequal versions in six lines
    return f"RAY_ADDRESS: no Ray to join at {address} ({reason}); start it, correct the address, or unset it to start a local Ray"
