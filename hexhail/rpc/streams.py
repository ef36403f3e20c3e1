"""When does a stream end? At a drain, when its token expires, and where load is to spread at a certain age: always with OK.

First it is let go: a caller that streams is told to close its side (the method's goodbye), what it has sent is dealt with, and
nothing is on its way any more when the stream ends. Whoever does not listen is read no more, at last the stream is cut off.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator

    import numpy as np

_PATIENCE_S = 5.0
_PATIENCE_SHARE = 0.1
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


@dataclass(frozen=True, slots=True)
class Life:
    """How long may a stream go on, seconds, and how long may its end take from then on?"""

    lasts_s: float
    patience_s: float = _PATIENCE_S


def life_of(token_left_s: float, age_s: float) -> Life:
    """Until its age, but never longer than its token: the end is then begun in time."""
    patience_s = min(_PATIENCE_S, _PATIENCE_SHARE * max(token_left_s, 0.0))
    return Life(min(max(token_left_s, 0.0) - patience_s, age_s), patience_s)


class OpenStream:
    """One stream that is being served.

    It is in one of two hands: the servicer's, which reads, deals and makes the next answer, or grpc's, which sends one.
    """

    __slots__ = ("_deaf", "_goodbye", "_let_go", "_ours", "_reader", "_reads", "_saying", "_serving", "_task", "_timer")

    def __init__(self, *, reads: bool, goodbye: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """`reads` : its caller streams too. `goodbye` : asks that caller to close its side."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
        self._task = task
        self._reads = reads
        self._goodbye = goodbye
        self._let_go = False
        self._deaf = False
        self._serving = True
        self._reader: asyncio.Task[Any] | None = None
        self._saying: asyncio.Task[None] | None = None
        self._ours: tuple[asyncio.Task[Any], ...] = ()
        self._timer: asyncio.TimerHandle | None = None

    def live(self, life: Life) -> None:
        """Lets it go when its time has come."""
        self._after(life.lasts_s, self.let_go, life.patience_s)

    def let_go(self, patience_s: float) -> None:
        """Ends it gently; after half the patience it is read no more, after all of it it is cut off."""
        if self._let_go:
            return
        self._let_go = True
        if self._reads and self._goodbye is not None:
            if self._serving:
                self._say_goodbye()
            self._after(patience_s / 2, self._turn_deaf, patience_s / 2)
        else:
            self._turn_deaf(patience_s)

    def _turn_deaf(self, patience_s: float) -> None:
        self._deaf = True
        self._after(patience_s, self._cancel, self._task)
        if self._reader is not None:
            self._cancel(self._reader)
        elif self._serving and not self._reads:
            self._cancel(self._task)

    def close(self) -> None:
        """It has ended."""
        if self._timer is not None:
            self._timer.cancel()

    async def requests(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The caller's messages; they end where it has closed its side, or where the stream is read no more."""
        while not self._deaf:
            self._reader = reader = asyncio.current_task()
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self._absorbs(reader):
                    raise
                return
            finally:
                self._reader = None
            yield message

    async def replies(self, messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """What the servicer answers; ends quietly where the stream is let go."""
        try:
            async for message in messages:
                await self._goodbye_said()
                self._serving = False
                yield message
                self._serving = True
                if self._let_go:
                    if not self._reads:
                        return
                    self._say_goodbye()
        except asyncio.CancelledError:
            if not self._absorbs(self._task):
                raise
        finally:
            await self._goodbye_said()
            await messages.aclose()  # type: ignore[attr-defined]  # every servicer's stream is an async generator

    def _say_goodbye(self) -> None:
        if self._saying is None and self._goodbye is not None:
            self._saying = asyncio.create_task(self._goodbye())

    async def _goodbye_said(self) -> None:
        """Two answers must not be sent at once. One that cannot be sent is no loss: then the caller has gone."""
        if self._saying is not None:
            await asyncio.wait((self._saying,))
            if not self._saying.cancelled():
                self._saying.exception()

    def _after(self, seconds: float, act: Callable[..., None], *arguments: object) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.0), act, *arguments)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self._ours += (task,)
        task.cancel()

    def _absorbs(self, task: asyncio.Task[Any] | None) -> bool:
        """Was it we who cancelled, and nobody else?"""
        return task is not None and task in self._ours and task.uncancel() == 0


@dataclass(slots=True)
class Drain:
    """The streams of a server, and their end when it is about to stop: grpc would cut them off with an error.

    patience_s : how long the end of a stream may take; less than a server's grace, or grpc is first
    """

    patience_s: float = 1.0
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
            stream.let_go(self.patience_s)

    @contextmanager
    def watching(self, stream: OpenStream) -> Iterator[OpenStream]:
        """Around the serving of a stream."""
        self._streams.add(stream)
        try:
            yield stream
        finally:
            stream.close()
            self._streams.discard(stream)
