"""The event loop under every process that serves or calls by gRPC: it takes in at once all that gRPC has finished.

grpc.aio's own thread puts each finished operation into a queue, and one byte into a socket that wakes the loop. The loop's side
then empties the whole queue, but takes one byte only. Where more than one operation is finished in a turn, the bytes left over
cost a turn each, for nothing; and once 278 of them have filled the socket, gRPC's thread waits until three quarters are gone:
some 200 turns in which no call comes in and none ends. A loop that is busy never gets out of that again.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GRPCS_QUEUE: Final = "PollerCompletionQueue"
"""What grpc.aio calls its own; nowhere in what it shows."""
_COUNT_BYTES: Final = 4


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on the loop of this module."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(work)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own, but for the socket by which gRPC wakes it."""

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """As everywhere; gRPC's callback finds one byte, however many there were."""
        if isinstance(fd, socket.socket) and is_grpcs(callback):
            callback = one_for_all(fd, callback)
        super().add_reader(fd, callback, *args)


def is_grpcs(callback: Callable[..., Any]) -> bool:
    """Is it by this that gRPC takes in what it has finished?"""
    method = callback.func if isinstance(callback, partial) else callback
    return type(getattr(method, "__self__", None)).__name__ == GRPCS_QUEUE


def one_for_all(wakes: socket.socket, callback: Callable[[*Ts], Any]) -> Callable[[*Ts], None]:
    """The callback, which reads one byte, called with no more than one byte to read.

    What the bytes taken away stood for is in gRPC's queue before they are written, so it is taken in by this very call.
    """

    def taken_in(*args: *Ts) -> None:
        waiting = int.from_bytes(fcntl.ioctl(wakes, termios.FIONREAD, bytes(_COUNT_BYTES)), sys.byteorder)
        if waiting > 1:
            wakes.recv(waiting - 1)
        callback(*args)

    return taken_in
