"""Is an address free, and how is it held? Strangers are refused; workers of our own may share it."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hexhail.cli.errors import ServiceError
from hexhail.kernel.addresses import host_and_port, is_socket_path, with_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def shared_port(service: str, address: str) -> Iterator[str]:
    """Holds an address for workers, who listen there with SO_REUSEPORT; gives it with the port that port 0 found.

    Nobody listens here: what holds it is bound only. It is bound without SO_REUSEPORT, which fails wherever anybody else is, and
    lets others in (of this user) only then; our workers would not notice a stranger. Raises ServiceError.
    """
    if is_socket_path(address):
        raise ServiceError(f"workers cannot share {address}: give HEXHAIL_{service.upper()}_ADDRESS as host:port")
    with ExitStack() as stack:
        try:
            held = _hold(address, stack)
        except (OSError, ValueError) as error:
            raise ServiceError(
                f"{service} cannot listen at {address} ({error}): free it, or set HEXHAIL_{service.upper()}_ADDRESS"
            ) from None
        yield held


def must_be_free(service: str, address: str) -> None:
    """Whoever listens there already would look like our own service. Raises ServiceError."""
    if not is_socket_path(address):
        with shared_port(service, address):
            pass


def _hold(address: str, stack: ExitStack) -> str:
    host, port = host_and_port(address)
    refused: OSError | None = None
    held = False
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        try:
            holder = _bound(family, kind, protocol, (place[0], port, *place[2:]))
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            refused = error
            continue
        stack.enter_context(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port, held = holder.getsockname()[1], True
    if not held and refused is not None:
        raise refused
    return with_port(address, port)


def _bound(family: int, kind: int, protocol: int, place: tuple[object, ...]) -> socket.socket:
    """Connections that were closed a moment ago keep a port from being bound, unless SO_REUSEADDR is set; but with that, another
    holder like this one could be overlooked: so it comes second.
    """
    for reuse_address in (False, True):
        holder = socket.socket(family, kind, protocol)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
            holder.bind(place)
        except OSError as error:
            holder.close()
            if reuse_address or error.errno != errno.EADDRINUSE:
                raise
        else:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            return holder
    raise AssertionError("the second try returns or raises")
