"""Who makes the load? Processes of their own, so that they have a core of their own as far as there is one."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import traceback
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from multiprocessing.connection import Connection

P = ParamSpec("P")
R = TypeVar("R")

_LEAVES_S = 5.0


class HandError(Exception):
    """What a hand was doing has failed; the text is its own account of it."""


class Hand:
    """A process that does one thing after another. It ends with this one, even where this one is killed."""

    def __init__(self, name: str) -> None:
        """Starts it, as a fresh interpreter: a forked one must not use grpc."""
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_work, args=(theirs,), name=f"hand-{name}", daemon=True)
        self._process.start()
        theirs.close()

    async def do(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns there. Raises HandError where it fails or the process ends."""
        await self._send(partial(function, *args, **kwargs), tells=False)
        return cast("R", await self._told())

    async def start(self, function: Callable[..., R], *args: Any) -> Awaitable[R]:
        """Returns once the function, which is given `under_way` to call for that, is under way; then its result is to be awaited.

        Raises HandError as `do` does.
        """
        await self._send(partial(function, *args), tells=True)
        await self._told()
        return cast("Awaitable[R]", self._told())

    async def _send(self, work: partial[Any], *, tells: bool) -> None:
        try:
            await asyncio.to_thread(self._pipe.send, (work, tells))
        except OSError as error:
            raise self._ended() from error

    async def _told(self) -> Any:
        try:
            well, result = await asyncio.to_thread(self._pipe.recv)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if not well:
            raise HandError(str(result))
        return result

    def _ended(self) -> HandError:
        return HandError(f"{self._process.name} has ended, exit code {self._process.exitcode}")

    def dismiss(self) -> None:
        """Ends it, whatever it is doing."""
        self._process.terminate()
        self._process.join(_LEAVES_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_LEAVES_S)
        self._pipe.close()


@contextmanager
def hand(name: str) -> Iterator[Hand]:
    """A hand for the time of the block."""
    ours = Hand(name)
    try:
        yield ours
    finally:
        ours.dismiss()


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then dismisses its hands
    while True:
        try:
            work, tells = pipe.recv()
        except EOFError:
            return  # the parent is gone
        try:
            reply = (True, work(under_way=partial(pipe.send, (True, None))) if tells else work())
        except Exception:  # noqa: BLE001 - told to whoever asked
            reply = (False, traceback.format_exc())
        pipe.send(reply)
