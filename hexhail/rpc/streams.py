"""When does a stream end? At a drain, when its token expires, and where load is to spread at a certain age: always with OK.

First it is let go: it reads no more requests, what was read is dealt with and acknowledged. Only one that takes too long over it
is cut off from what it is doing.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import numpy as np

_DRAIN_PATIENCE_S = 1.0
"""Less than a server's grace, after which grpc cuts off whatever is left with an error."""
_PATIENCE_S = 5.0
_GRPC_JITTER = 0.1
"""By so much grpc varies a connection's age, either way."""


@dataclass(frozen=True, slots=True)
class StreamAge:
    """How old does a stream become before its caller is sent to connect again, perhaps to another process of the service?

    mean_s : seconds
    jitter : share of it by which ages vary evenly, either way, so that those who came together do not come back together
    """

    mean_s: float
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.mean_s < 1e6:
            raise ValueError(f"mean_s is {self.mean_s:g}, not above 0 and below a million")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is {self.jitter:g}, not in [0, 1)")

    def draw_s(self, chance: np.random.Generator) -> float:
        """The age of one stream, seconds."""
        return float(chance.uniform(self.mean_s * (1 - self.jitter), self.mean_s * (1 + self.jitter)))

    @property
    def connection_age_ms(self) -> int:
        """When must a connection take no more calls, so that whoever's stream has ended connects anew?

        Before its first stream can have come of age: then every end by age leads to a new connection. It is not cut off then,
        grpc only asks for another one, and lets open streams be.
        """
        return max(1, int(1000 * self.mean_s * (1 - self.jitter) / (1 + _GRPC_JITTER)))


class OpenStream:
    """One stream that is being served."""

    __slots__ = ("_cut", "_ours", "_reader", "_reads", "_serving", "_task")

    def __init__(self, *, reads: bool) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
        self._task = task
        self._reads = reads
        self._reader: asyncio.Task[Any] | None = None
        self._serving = True
        self._ours: tuple[asyncio.Task[Any], ...] = ()
        self._cut: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> bool:
        """Has it been let go?"""
        return self._cut is not None

    def end(self, patience_s: float = _PATIENCE_S) -> None:
        """Lets it go."""
        if self.ending:
            return
        self._cut = asyncio.get_running_loop().call_later(patience_s, self._cancel, self._task)
        if self._reader is not None:
            self._cancel(self._reader)
        elif self._serving and not self._reads:
            self._cancel(self._task)

    async def requests(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The caller's messages; they end where it has closed its side, or where the stream is let go."""
        while not self.ending:
            self._reader = asyncio.current_task()
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self._absorbs(self._reader):
                    raise
                return
            finally:
                self._reader = None
            yield message

    async def replies(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """What the servicer answers; ends quietly where the stream is let go."""
        try:
            async for message in messages:
                self._serving = False
                yield message
                self._serving = True
                if self.ending and not self._reads:
                    return
        except asyncio.CancelledError:
            if not self._absorbs(self._task):
                raise
        finally:
            await messages.aclose()  # type: ignore[attr-defined]  # every servicer's stream is an async generator

    def close(self) -> None:
        """It has ended."""
        if self._cut is not None:
            self._cut.cancel()

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self._ours += (task,)
        task.cancel()

    def _absorbs(self, task: asyncio.Task[Any] | None) -> bool:
        """Was it we who cancelled, and nobody else?"""
        return task is not None and task in self._ours and task.uncancel() == 0


@dataclass(slots=True)
class Drain:
    """The streams of a server, and their end when it is about to stop: grpc would cut them off with an error."""

    _streams: set[OpenStream] = field(default_factory=set)
    draining: bool = False

    @property
    def open_streams(self) -> int:
        """How many there are."""
        return len(self._streams)

    def begin(self) -> None:
        """Lets every open stream go; new calls are to be refused."""
        self.draining = True
        for stream in self._streams:
            stream.end(_DRAIN_PATIENCE_S)

    @contextmanager
    def stream(self, life_s: float, *, reads: bool) -> Iterator[OpenStream]:
        """Around the serving of one stream, which is let go after `life_s` seconds; `reads` says that its caller streams too."""
        stream = OpenStream(reads=reads)
        age = asyncio.get_running_loop().call_later(max(life_s, 0.0), stream.end)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            age.cancel()
            stream.close()
            self._streams.discard(stream)
