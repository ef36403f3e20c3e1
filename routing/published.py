"""The traffic as a city's learner has published it: whoever asks, asks the router of the newest state."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from hexhail.kernel.units import MS_PER_S
from routing.rebuilding import RebuildError, make_tables_beside
from routing.road import RoadRouter
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
        """Looks once; was there newer traffic?

        A file that cannot be used is logged, and what was known stays; where it cannot be read, or its tables not be made, it is
        tried again next time.
        """
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns)
            if seen == self._seen:
                return False
            state = await asyncio.to_thread(read_state, self._path, self._base.free_flow, self._patches)
            router = await self._router_in(state)
        except FileNotFoundError:
            return False
        except (OSError, RebuildError) as error:
            log.warning("traffic cannot be read", problem=str(error))
            return False
        except ValueError as error:
            self._seen = seen
            log.warning("traffic cannot be used", problem=str(error))
            return False
        self._seen, self._present, self._at_ms = seen, router, state.at_ms
        log.info("traffic", version=router.version)
        return True

    async def _router_in(self, state: TrafficState) -> JoinedRouter:
        """The learner's tables are there already, as a rule; where they are not, they are made while questions go on."""
        base = self._base
        if isinstance(base, RoadRouter) and base.tables_dir is not None:
            await make_tables_beside(base.free_flow.slowed(state.slowness), base.tables_dir)
        return await asyncio.to_thread(router_in, base, state)

    async def _watch(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(LOOK_S)
