"""Batched windows in a replay: all who search and all who are free, assigned at once, as `matching.batcher` does. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.dispatch_phased import offer_id_of
from benchmarks.dispatch_replay import CITY
from hexhail.kernel.units import MS_PER_S
from matching.assignment import assign
from matching.model import OffersPlanned, PlannedOffer, RideState
from matching.offers import next_phase
from matching.window import Reach, given_to, window_of

if TYPE_CHECKING:
    from benchmarks.dispatch_replay import Replay
    from hexhail.kernel.units import Ints
    from matching.params import BatchParams


class Batched:
    """All who search wait for the next window; there each is given one driver, or waits for the one after."""

    def __init__(self, params: BatchParams) -> None:
        self._params = params
        self._window_ms = round(params.window_s * MS_PER_S)
        self._waiting: set[int] = set()
        self._planned = False

    def search(self, replay: Replay, ride: int, now_ms: int) -> None:
        """Sets the ride aside until the clock has gone on by whole windows."""
        self._waiting.add(ride)
        if not self._planned:
            self._planned = True
            replay.at((now_ms // self._window_ms + 1) * self._window_ms, lambda at_ms: self._window(replay, at_ms))

    def _window(self, replay: Replay, now_ms: int) -> None:
        self._planned = False
        rides = sorted(ride for ride in self._waiting if replay.rides[ride].state is RideState.SEARCHING)
        drivers = np.flatnonzero(replay.fleet.free)
        given = self._given(replay, rides, drivers, now_ms) if rides and len(drivers) else {}
        self._waiting = set()
        for ride in rides:
            if ride in given:
                replay.offer(ride, _plan(replay, ride, given[ride]), now_ms)
            else:
                self.search(replay, ride, now_ms)

    def _given(self, replay: Replay, rides: list[int], drivers: Ints, now_ms: int) -> dict[int, int]:
        """Whom does each of these rides get? Those that are left waiting are not among them."""
        window = window_of(
            CITY,
            [replay.rides[ride] for ride in rides],
            [replay.fleet.ids[driver] for driver in drivers.tolist()],
            self._reach(replay, rides, drivers),
            replay.fleet.facts(drivers),
            replay.fleet.idle_s(drivers, now_ms),
            self._params.assignment,
            now_ms,
            travel_times_version="",
            travel_times_fell_back=False,
            complete=True,
        )
        assignment = assign(window.pairs(), window.waiting_milli, len(drivers))
        named = zip(rides, given_to(window, assignment), strict=True)
        return {ride: replay.number_of(driver_id) for ride, driver_id in named if driver_id}

    def _reach(self, replay: Replay, rides: list[int], drivers: Ints) -> Reach:
        """Of each ride, those who are there soonest."""
        count = min(self._params.looked_at, len(drivers))
        limit_ms = round(self._params.assignment.pickup_limit_s * MS_PER_S)
        found: list[tuple[Ints, Ints, Ints]] = []
        for number, ride in enumerate(rides):
            pickup_s = replay.streets.times_to_s(int(replay.demand.pickups[ride]), replay.fleet.at[drivers])
            soonest = np.argpartition(pickup_s, count - 1)[:count]
            soonest = soonest[np.lexsort((soonest, pickup_s[soonest]))]
            soonest = soonest[pickup_s[soonest] * MS_PER_S <= limit_ms]
            found.append((np.full(len(soonest), number), soonest, np.rint(pickup_s[soonest] * MS_PER_S).astype(np.int64)))
        return Reach(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _plan(replay: Replay, ride: int, driver: int) -> OffersPlanned:
    phase, pickup, here = next_phase(replay.rides[ride]), int(replay.demand.pickups[ride]), int(replay.fleet.at[driver])
    offer = PlannedOffer(
        offer_id_of(ride, phase, replay.fleet.ids[driver]),
        replay.fleet.ids[driver],
        round(replay.streets.time_ms(here, pickup) / MS_PER_S),
        round(replay.streets.distance_m(here, pickup)),
    )
    return OffersPlanned(phase, (offer,))
