"""The traffic as a city's learner has published it: whoever asks, asks the router of the newest state."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from hexhail.kernel.units import MS_PER_S
from routing.road_files import RoutingFileError
from routing.sources import Answered, RouterSource
from routing.state_file import TrafficState, read_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hexhail.kernel.clock import Clock
    from routing.joining import JoinedRouter
    from routing.model import Router
    from routing.sources import Loops

T = TypeVar("T")

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
OLDEST_S: Final = 3_600.0
"""The traffic of longer ago is none: the city's own router, which knows of none, answers again."""


def router_in(base: JoinedRouter, state: TrafficState) -> JoinedRouter:
    """The router of this state, on the streets of the other. Seconds of work where its tables are not there yet."""
    params = replace(base.params, time_factor=1.0, terminal_s=state.terminal_s, approach_speed_mps=1.0 / state.leg_s_per_m)
    return base.with_slowness(state.slowness, params)


class PublishedSource(RouterSource):
    """The router of a city's newest traffic; until there is some, and where it is too old, the city's own."""

    def __init__(self, base: JoinedRouter, path: Path, patches: int, clock: Clock) -> None:
        """`path` is where the learner publishes, `patches` how many it learns of."""
        self._base = base
        self._path = path
        self._patches = patches
        self._clock = clock
        self._present: JoinedRouter = base
        self._at_ms: int | None = None
        self._seen: tuple[int, int] | None = None

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does the router of the newest traffic answer?"""
        router = self._present
        if self._at_ms is not None and abs(self._clock.now_ms() - self._at_ms) > OLDEST_S * MS_PER_S:
            router = self._base
        return Answered(question(router), router.version)

    def loops(self) -> Loops:
        """Looks for newer traffic."""
        return {"traffic": self._watch}

    async def look(self) -> bool:
        """Looks once; was there newer traffic? A file that cannot be used is logged, and what was known stays."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            router, at_ms = await asyncio.to_thread(self._read)
        except (RoutingFileError, OSError) as error:
            log.warning("traffic cannot be used", problem=str(error))
            return False
        self._present, self._at_ms = router, at_ms
        log.info("traffic", version=router.version)
        return True

    def _read(self) -> tuple[JoinedRouter, int]:
        state = read_state(self._path, self._base.free_flow, self._patches)
        return router_in(self._base, state), state.at_ms

    async def _watch(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(LOOK_S)
