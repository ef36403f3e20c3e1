"""What all people of a live run share: the city's streets, the time, the connections, the ledger, and the end."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from simulator.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from hexhail.client import Channels, Role
    from hexhail.kernel.clock import Clock
    from routing.model import Router
    from simulator.fleet import Fleet
    from simulator.params import LiveParams


@dataclass(slots=True)
class World:
    """One per run."""

    params: LiveParams
    channels: Channels
    clock: Clock
    router: Router
    fleet: Fleet
    tokens: Callable[[Role, str], str]
    ledger: Ledger = field(default_factory=Ledger)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the run is over: finish what is under way, begin nothing."""
    doors: asyncio.Semaphore = field(init=False)
    """How many come or go at once."""
    news: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=8))
    """(when, what) happened lately."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    failure: BaseException | None = None
    """The first defect of ours: it ends the run."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.doors = asyncio.Semaphore(self.params.concurrency)

    def now_s(self) -> float:
        """The city's time, Unix seconds."""
        return self.clock.now_ms() / MS_PER_S

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
