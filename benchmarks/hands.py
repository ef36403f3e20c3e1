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
    from collections.abc import Callable, Iterator
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

    @property
    def pid(self) -> int:
        """Its process id."""
        pid = self._process.pid
        assert pid is not None  # noqa: S101 - it was started
        return pid

    async def do(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns there. Raises HandError where it fails or the process ends."""
        await self._send((partial(function, *args, **kwargs), False))
        return cast("R", await self._told())

    async def start(self, function: Callable[..., object], *args: object) -> None:
        """Returns once the function is under way: it is given `under_way` to call then, and `stopped` to ask when to end.

        Raises HandError where it fails before.
        """
        await self._send((partial(function, *args), True))
        await self._told()

    async def stop(self) -> Any:
        """What the function that was started returns, now that it is told to end. Raises HandError."""
        await self._send(None)
        return await self._told()

    async def _send(self, message: tuple[partial[Any], bool] | None) -> None:
        try:
            await asyncio.to_thread(self._pipe.send, message)
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
            message = pipe.recv()
        except EOFError:
            return  # the parent is gone
        if message is None:
            continue  # what was to be stopped has seen it, or had failed before
        work, started = message
        try:
            reply = (True, work(under_way=partial(pipe.send, (True, None)), stopped=pipe.poll) if started else work())
        except Exception:  # noqa: BLE001 - told to whoever asked
            reply = (False, traceback.format_exc())
        pipe.send(reply)
