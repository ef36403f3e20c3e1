"""Is an address free, and how is it held? Strangers are refused; workers of our own may share it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from hexhail.cli.errors import ServiceError
from hexhail.kernel.addresses import is_socket_path
from hexhail.rpc.ports import held_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def shared_port(service: str, address: str) -> Iterator[str]:
    """Holds an address for workers (`hexhail.rpc.ports`); gives it with the port that port 0 found. Raises ServiceError."""
    if is_socket_path(address):
        raise ServiceError(f"workers cannot share {address}: give HEXHAIL_{service.upper()}_ADDRESS as host:port")
    with ExitStack() as stack:
        try:
            held = stack.enter_context(held_port(address))
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
