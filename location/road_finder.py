"""Who is at a place soonest? Looks at drivers by distance, as far as the travel times say that one must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel.units import from_e7
from location.road_time import first_look, next_look, soonest, whole_ms

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Ints
    from location.finder import Finder
    from location.metrics import LocationMetrics
    from location.model import NearbyAnswer, NearbyQuestion
    from location.nearby import NearbyParams
    from location.road_time import TimedAnswer
    from routing.model import Router
    from routing.sources import Answered, RouterSource

MOST_LOOKS: Final = 4
"""Two are enough while everything stands still. Where drivers and travel times change too fast, the answer says so."""


class RoadFinder:
    """Finds the drivers of one city that are at a place soonest."""

    def __init__(
        self, finder: Finder, travel_times: RouterSource, params: NearbyParams, clock: Clock, metrics: LocationMetrics
    ) -> None:
        self._finder = finder
        self._travel_times = travel_times
        self._params = params
        self._clock = clock
        self._metrics = metrics

    async def find(self, question: NearbyQuestion) -> TimedAnswer:
        """Answers the question exactly, but for an answer that says it is cut short. Raises STORE_UNAVAILABLE.

        The last look alone makes the answer, with the travel times of one version.
        """
        most = max(self._params.road_time_candidates, question.max_drivers)
        look = first_look(question, most)
        for left in reversed(range(MOST_LOOKS)):
            found = await self._finder.find(look)
            times = await self._times(question, found)
            time_ms, top_speed_mps = times.value
            self._metrics.road_times += len(time_ms)
            further = next_look(question, found, time_ms, top_speed_mps, most) if left else None
            if further is None:
                break
            look = further
        return soonest(question, found, time_ms, top_speed_mps, times.version, fell_back=times.fell_back)

    async def _times(self, question: NearbyQuestion, found: NearbyAnswer) -> Answered[tuple[Ints, float]]:
        positions = found.drivers.positions
        here = np.array([(question.place.lat, question.place.lng)])
        theirs = np.column_stack((from_e7(positions["lat_e7"]), from_e7(positions["lng_e7"])))
        now_ms = self._clock.now_ms()

        def ask(router: Router) -> tuple[Ints, float]:
            if not router.covers(here)[0]:
                return whole_ms(np.full(len(theirs), np.inf)), 0.0
            return whole_ms(router.times_s(theirs, here, now_ms)[:, 0]), router.top_speed_mps

        return await self._travel_times.ask(ask)
