"""Which host and port does an address name? `host:port`, `[v6]:port` or, for gRPC only, `unix:PATH`."""

from __future__ import annotations

_MAX_PORT = 65_535


def is_socket_path(address: str) -> bool:
    """Is it a Unix socket rather than a port?"""
    return address.startswith("unix:")


def host_and_port(address: str) -> tuple[str, int]:
    """Its two parts, the host without brackets. Raises ValueError, on one line, where it has no such parts."""
    host, _, digits = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not (digits.isascii() and digits.isdigit()) or int(digits) > _MAX_PORT:
        raise ValueError(f"{address!r} is not host:port")
    return bare, int(digits)


def with_port(address: str, port: int) -> str:
    """The same host with another port."""
    return f"{address.rpartition(':')[0]}:{port}"


def neighbour(address: str, number: int) -> str:
    """So many ports further on, for the next process of its kind. Port 0 stays: each finds a free one of its own.

    Raises ValueError where it is not host:port, or the ports end before.
    """
    _, port = host_and_port(address)
    if port == 0:
        return address
    if port + number > _MAX_PORT:
        raise ValueError(f"{address} has no port {number} further on: the highest is {_MAX_PORT}")
    return with_port(address, port + number)
