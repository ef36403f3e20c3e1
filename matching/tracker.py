"""Where is my driver? One look at location every few seconds serves all who watch a ride; routing gives the time that is left."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hexhail.rpc.background import every
from matching.model import ASSIGNED, RideState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import CityId
    from matching.model import Ride
    from matching.peers import DriverPosition, Location
    from matching.store import Rides
    from routing.model import Floats32, Router
    from routing.sources import RouterSource

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Track:
    """Where a ride's driver was last seen, and how long it will need: to the pickup before it, to the drop-off after."""

    driver_id: str
    place: Place
    heading_deg: float | None
    eta_s: int | None
    """None where there is no way, or none is known."""
    age_ms: int


@dataclass(eq=False, slots=True)
class Followed:
    """A ride that somebody watches. The watcher keeps `ride` up to date."""

    ride: Ride
    tracked: Callable[[Track], None]
    changed: Callable[[], None]


class Tracker:
    """Tells watchers where their drivers are."""

    def __init__(
        self,
        location: Location,
        rides: Rides,
        sources: Mapping[CityId, RouterSource],
        clock: Clock,
        periods_s: Mapping[CityId, float],
    ) -> None:
        self._location = location
        self._rides = rides
        self._sources = sources
        self._clock = clock
        self._periods_s = periods_s
        self._followed: set[Followed] = set()

    @contextmanager
    def follow(self, ride: Ride, tracked: Callable[[Track], None], changed: Callable[[], None]) -> Iterator[Followed]:
        """Calls `tracked` with every new track of the ride's driver, for the time of the block.

        Calls `changed` where PostgreSQL has another version than the watcher: a notice that was lost is found out here.
        """
        followed = Followed(ride, tracked, changed)
        self._followed.add(followed)
        try:
            yield followed
        finally:
            self._followed.discard(followed)

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """One loop per city, each at its own pace."""
        return {
            f"tracker {city_id}": every(period_s, partial(self.look_at, city_id), self._clock)
            for city_id, period_s in self._periods_s.items()
        }

    async def look(self) -> None:
        """Looks once at every city, for all who watch now. Raises PEER_UNAVAILABLE."""
        for city_id in self._periods_s:
            await self.look_at(city_id)

    async def look_at(self, city_id: CityId) -> None:
        """Looks once at one city. Raises STORE_UNAVAILABLE, PEER_UNAVAILABLE."""
        here = [f for f in self._followed if f.ride.city_id == city_id]
        for some in _batched(here, _BATCH):
            versions = await self._rides.versions([f.ride.ride_id for f in some])
            for followed in some:
                if versions.get(followed.ride.ride_id, followed.ride.version) > followed.ride.version:
                    followed.changed()
        for some in _batched([f for f in here if f.ride.state in ASSIGNED], _BATCH):
            ids = sorted({f.ride.assignment.driver_id for f in some if f.ride.assignment})
            await self._tell(city_id, some, await self._location.positions(city_id, ids))

    async def _tell(self, city_id: CityId, followed: list[Followed], positions: dict[str, DriverPosition]) -> None:
        seen = [
            (f, positions[f.ride.assignment.driver_id])
            for f in followed
            if f.ride.assignment and f.ride.assignment.driver_id in positions
        ]
        if not seen:
            return
        goals = [f.ride.dropoff if f.ride.state is RideState.IN_PROGRESS else f.ride.pickup for f, _ in seen]
        here = np.array([(p.place.lat, p.place.lng) for _, p in seen])
        there = np.array([(goal.lat, goal.lng) for goal in goals])
        now_ms = self._clock.now_ms()

        def time_left(router: Router) -> Floats32:
            return router.pair_times_s(here, there, now_ms)

        times = await self._sources[city_id].ask(time_left)
        for (follower, position), time_s in zip(seen, times.value.tolist(), strict=True):
            if follower not in self._followed:
                continue  # its watcher has gone meanwhile
            eta_s = round(time_s) if np.isfinite(time_s) else None
            follower.tracked(Track(position.driver_id, position.place, position.heading_deg, eta_s, position.age_ms))


def _batched(items: list[Followed], size: int) -> Iterator[list[Followed]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
