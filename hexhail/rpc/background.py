"""Loops beside a server: they run until the end, and one that fails is logged and started again, never missed in silence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from hexhail.kernel.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping

    from hexhail.kernel.clock import Clock

log = structlog.get_logger(__name__)

_RESTART_S = 1.0
_CANCEL_AGAIN_S = 0.5

MANY_ROWS: Final = 1_000
"""So many rows of a few microseconds each are worth a thread's while (0.1 ms)."""

Answer = TypeVar("Answer")


@asynccontextmanager
async def background(loops: Mapping[str, Callable[[], Coroutine[None, None, None]]], clock: Clock) -> AsyncIterator[None]:
    """Runs each loop, by name, for the time of the block."""
    tasks = [asyncio.create_task(_kept_running(name, loop, clock), name=name) for name, loop in loops.items()]
    try:
        yield
    finally:
        await end(tasks)


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels until every task has ended: a cancellation that meets redis-py while it connects can get lost there."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


async def computed(rows: int, work: Callable[..., Answer], *arguments: Any) -> Answer:
    """What this work gives, done in a thread where the rows are many: nobody has the loop for more than some milliseconds."""
    return await asyncio.to_thread(work, *arguments) if rows > MANY_ROWS else work(*arguments)


def every(
    period_s: float, work: Callable[[], Coroutine[None, None, None]], clock: Clock
) -> Callable[[], Coroutine[None, None, None]]:
    """A loop that waits a period, works, waits again; what cannot be done for lack of a store or a peer is tried next time."""

    async def loop() -> None:
        while True:
            await clock.sleep(period_s)
            try:
                await work()
            except DomainError as error:
                log.warning("postponed", reason=error.reason, work=getattr(work, "__qualname__", ""))

    return loop


async def _kept_running(name: str, loop: Callable[[], Coroutine[None, None, None]], clock: Clock) -> None:
    while True:
        try:
            await loop()
        except Exception:
            log.exception("loop failed", loop=name)
        await clock.sleep(_RESTART_S)
