"""What all people of a live run share: the city's streets, the time, the connections, the ledger, and the end."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from simulator.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from hexhail.client import Channels, Role
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.geo import Place
    from routing.model import Route, Router
    from simulator.fleet import Fleet
    from simulator.params import LiveParams
    from simulator.traffic import Traffic


@dataclass(slots=True)
class World:
    """One per run."""

    params: LiveParams
    channels: Channels
    clock: Clock
    router: Router
    fleet: Fleet
    tokens: Callable[[Role, str], str]
    traffic: Traffic | None = None
    """What makes the streets slower or faster than `router` says."""
    ledger: Ledger = field(default_factory=Ledger)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the run is over: finish what is under way, begin nothing."""
    doors: asyncio.Semaphore = field(init=False)
    """How many come or go at once."""
    news: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=8))
    """(when, what) happened lately."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    drives: Counter[int] = field(default_factory=Counter)
    """How often each driver has set out."""
    failure: BaseException | None = None
    """The first defect of ours: it ends the run."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.doors = asyncio.Semaphore(self.params.concurrency)

    def now_s(self) -> float:
        """The city's time, Unix seconds."""
        return self.clock.now_ms() / MS_PER_S

    def way(self, driver: int, here: Place, there: Place) -> Route:
        """By which way will the driver get there, and how long will it truly take, setting out now? Raises NO_ROUTE."""
        now_s = self.now_s()
        route = self.router.route(here, there, round(now_s * MS_PER_S))
        if self.traffic is None:
            return route
        self.drives[driver] += 1
        return self.traffic.driven(route, now_s, self.traffic.drive_factor(driver, self.drives[driver]))

    def tell(self, text: str) -> None:
        """Something worth showing has happened."""
        self.news.append((self.clock.now_ms(), text))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Lets a person act. A defect in it ends the run."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self.failure is None:
            self.failure = task.exception()
            self.failed.set()
