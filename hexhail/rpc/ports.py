"""How is an address kept for several who are to listen there, and from everybody else?"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hexhail.kernel.addresses import host_and_port, with_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def held_port(address: str) -> Iterator[str]:
    """Holds `host:port` for those who listen there with SO_REUSEPORT; gives it with the port that port 0 found.

    Nobody listens here: what holds it is bound only. It is bound without SO_REUSEPORT, which fails wherever anybody else is, and
    lets others in (of this user) only then; those who share it would not notice a stranger. Raises OSError where it is taken or
    not this machine's, ValueError where it is not host:port.
    """
    with ExitStack() as stack:
        yield _hold(address, stack)


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
