"""Batched windows in a replay: one cheapest assignment of all who search to all who are free, every few seconds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.dispatch_phased import offer_id_of
from hexhail.kernel.units import MS_PER_S
from matching.assignment import WAITS, Pairs, assign, pair_cost_milli, waiting_cost_milli
from matching.model import OffersPlanned, OfferState, PlannedOffer
from matching.offers import next_phase

if TYPE_CHECKING:
    from benchmarks.dispatch_replay import Replay
    from hexhail.kernel.units import Floats, Ints
    from matching.assignment import AssignmentParams

_NOT_AGAIN = (OfferState.DECLINED, OfferState.EXPIRED)


class Batched:
    """All who search wait for the next window, and are given one driver each there, or wait for the next one."""

    def __init__(self, params: AssignmentParams, window_s: float) -> None:
        self._params = params
        self._window_ms = round(window_s * MS_PER_S)
        self._waiting: set[int] = set()
        self._planned = False

    def search(self, replay: Replay, ride: int, now_ms: int) -> None:
        """Sets the ride aside for the next window: the next full two seconds of the clock, say."""
        self._waiting.add(ride)
        if not self._planned:
            self._planned = True
            replay.at((now_ms // self._window_ms + 1) * self._window_ms, lambda at_ms: self._window(replay, at_ms))

    def _window(self, replay: Replay, now_ms: int) -> None:
        self._planned = False
        waiting, self._waiting = sorted(self._waiting), set()
        rides = [ride for ride in waiting if replay.look(ride, now_ms)]
        drivers = np.flatnonzero(replay.fleet.free & ~replay.fleet.asked)
        served = self._assigned(replay, rides, drivers, now_ms) if rides and len(drivers) else {}
        for ride in rides:
            if ride in served:
                replay.offer(ride, served[ride], now_ms)
            else:
                self.search(replay, ride, now_ms)

    def _assigned(self, replay: Replay, rides: list[int], drivers: Ints, now_ms: int) -> dict[int, OffersPlanned]:
        pickups = replay.demand.pickups[rides]
        pickup_s = np.stack([replay.streets.times_to_s(junction, replay.fleet.at[drivers]) for junction in pickups.tolist()])
        row, column = self._pairs(replay, rides, drivers, pickup_s)
        cost_milli = pair_cost_milli(pickup_s[row, column], replay.fleet.idle_s(drivers, now_ms)[column], self._params)
        waited_s = np.array([(now_ms - replay.rides[ride].search_began_at_ms) / MS_PER_S for ride in rides])
        found = assign(Pairs(row, column, cost_milli), waiting_cost_milli(waited_s, self._params), len(drivers))
        return {
            rides[number]: self._offer(replay, rides[number], int(drivers[driver]), float(pickup_s[number, driver]))
            for number, driver in enumerate(found.driver.tolist())
            if driver != WAITS
        }

    def _pairs(self, replay: Replay, rides: list[int], drivers: Ints, pickup_s: Floats) -> tuple[Ints, Ints]:
        """Of each ride the drivers who are there soonest, less those who declined it or let its offer pass."""
        count = min(self._params.candidates, len(drivers))
        nearest = np.argpartition(pickup_s, count - 1, axis=1)[:, :count]
        row, column = np.repeat(np.arange(len(rides)), count), nearest.ravel().astype(np.int64)
        refused = np.zeros(pickup_s.shape, dtype=np.bool_)
        for number, ride in enumerate(rides):
            for offer in replay.rides[ride].offers:
                if offer.state in _NOT_AGAIN:
                    refused[number] |= drivers == replay.number_of(offer.driver_id)
        keep = (pickup_s[row, column] <= self._params.pickup_limit_s) & ~refused[row, column]
        return row[keep], column[keep]

    @staticmethod
    def _offer(replay: Replay, ride: int, driver: int, pickup_s: float) -> OffersPlanned:
        phase, driver_id = next_phase(replay.rides[ride]), replay.fleet.ids[driver]
        distance_m = replay.streets.distance_m(int(replay.fleet.at[driver]), int(replay.demand.pickups[ride]))
        planned = PlannedOffer(offer_id_of(ride, phase, driver_id), driver_id, round(pickup_s), round(distance_m))
        return OffersPlanned(phase, (planned,))
