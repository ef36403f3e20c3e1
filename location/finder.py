"""Who is near? Reads as little of the index as makes the answer certain: one round trip as a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from location.model import NearbyAnswer, NearbyQuestion
from location.nearby import SPREAD, Surroundings, cursor_behind, left_out, next_reach_m, plan_reading, select

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from location.metrics import LocationMetrics
    from location.nearby import NearbyParams
    from location.store import LocationStore

GUESS_MAX_AGE_MS: Final = 2_000


class Finder:
    """Finds the nearest drivers of one city."""

    def __init__(
        self, store: LocationStore, index_resolution: int, params: NearbyParams, clock: Clock, metrics: LocationMetrics
    ) -> None:
        self._store = store
        self._index_resolution = index_resolution
        self._params = params
        self._clock = clock
        self._metrics = metrics
        self._surroundings: Surroundings | None = None
        self._surveyed_at_ms = 0

    async def find(self, question: NearbyQuestion) -> NearbyAnswer:
        """Answers the question exactly. Raises STORE_UNAVAILABLE.

        Each reading is whole and of one instant, and the last alone makes the answer: a driver that moves meanwhile is found
        once.
        """
        self._metrics.nearby_questions += 1
        surroundings = await self._survey()
        beyond_m = question.after.distance_mm / 1000 if question.after else 0.0
        wanted = question.max_drivers + 1
        reach_m = min(question.radius_m, SPREAD * surroundings.guess_reach_m(question.place, wanted, beyond_m))
        while True:
            reading = plan_reading(question.place, self._index_resolution, reach_m, surroundings, self._params)
            read = self._store.read_near_all_but if reading.all_but else self._store.read_near
            drivers, epoch = await read(question.place, reading.certain_m, reading.cells)
            self._metrics.nearby_readings += 1
            now_ms = self._clock.now_ms()
            found, distance_mm = select(drivers, question, now_ms)
            missing = wanted - len(distance_mm)
            guess_m = surroundings.guess_reach_m(question.place, 2 * missing, reading.certain_m) if missing > 0 else 0.0
            further_m = next_reach_m(question, reading, distance_mm, guess_m)
            if further_m is None:
                break
            reach_m = further_m
        if len(distance_mm) > question.max_drivers:
            found = found.first(question.max_drivers)
            distance_mm = distance_mm[: question.max_drivers]
            behind = cursor_behind(found, distance_mm)
            others = left_out(drivers, question, behind.distance_mm, now_ms)
            return NearbyAnswer(found, distance_mm, epoch.complete, behind.distance_mm / 1000, behind, now_ms, others)
        others = left_out(drivers, question, round(question.radius_m * 1000), now_ms)
        return NearbyAnswer(found, distance_mm, epoch.complete, question.radius_m, None, now_ms, others)

    async def _survey(self) -> Surroundings:
        now_ms = self._clock.now_ms()
        if self._surroundings is None or abs(now_ms - self._surveyed_at_ms) > GUESS_MAX_AGE_MS:
            self._surroundings = Surroundings(await self._store.occupancy())
            self._surveyed_at_ms = now_ms
        return self._surroundings
