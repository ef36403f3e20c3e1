"""How does a live run stand at this moment? What a view shows, gathered a few times a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simulator.summary import rides_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.kernel.units import Bools, Floats
    from simulator.summary import Rides
    from simulator.world import World


@dataclass(frozen=True, slots=True, eq=False)
class LiveState:
    """One moment of a run.

    phase : what is going on, for people
    city_ms : the city's time, Unix milliseconds
    elapsed_s, total_s : since the first request's hour; None for a run without end
    searching, on_ride : rides without a driver yet; drivers bound to a ride
    fixes_per_s : accepted, over the time since the state before
    drivers : float64[n_drivers, 2], lat and lng in degrees
    busy : bool[n_drivers]
    open_pickups : float64[n_searching, 2], lat and lng in degrees
    surging : cell -> multiplier in thousandths, of those above 1
    news : (when, Unix milliseconds; what), oldest first
    """

    phase: str
    city_ms: int
    elapsed_s: float
    total_s: float | None
    rides: Rides
    searching: int
    on_ride: int
    fixes_per_s: float
    calls_ok: int
    refused: int
    rpc_errors: int
    drivers: Floats
    busy: Bools
    open_pickups: Floats
    surging: Mapping[int, int]
    surge_max_milli: int | None
    cells_surging: int
    news: tuple[tuple[int, str], ...]


class Progress(Protocol):
    """Whoever shows a run."""

    period_s: float
    """How often it wants to be told."""

    def update(self, state: LiveState) -> None:
        """The run stands like this now."""


class Gathering:
    """Makes one state after another out of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = (world.now_s(), 0)
        self.begun_s: float | None = None
        """When the requests' hour began, on the city's clock."""

    def state(self, phase: str) -> LiveState:
        """The state now."""
        world = self._world
        ledger, now_s = world.ledger, world.now_s()
        before_s, accepted = self._before
        self._before = (now_s, ledger.fixes.accepted)
        searching = ledger.searching()
        minutes = world.params.minutes
        return LiveState(
            phase=phase,
            city_ms=world.clock.now_ms(),
            elapsed_s=0.0 if self.begun_s is None else now_s - self.begun_s,
            total_s=None if minutes is None else minutes * 60.0,
            rides=rides_now(ledger),
            searching=len(searching),
            on_ride=int(world.fleet.busy.sum()),
            fixes_per_s=(ledger.fixes.accepted - accepted) / (now_s - before_s) if now_s > before_s else 0.0,
            calls_ok=world.channels.counts.ok,
            refused=world.channels.counts.refusals.total(),
            rpc_errors=world.channels.counts.rpc_errors.total(),
            drivers=world.fleet.everyone(now_s),
            busy=world.fleet.busy.copy(),
            open_pickups=np.array([(r.pickup.lat, r.pickup.lng) for r in searching], dtype=np.float64).reshape(-1, 2),
            surging=dict(ledger.surge.now),
            surge_max_milli=ledger.surge.max_milli,
            cells_surging=len(ledger.surge.cells),
            news=tuple(world.news),
        )
