"""Do drivers on a ride still come, and do we hear of them? Looks at many with one question, and ends what has failed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.units import MS_PER_S
from hexhail.rpc.background import every
from matching.model import DriverSilent, NoProgress, RideState
from matching.progress import Sight, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.changer import Changer
    from matching.peers import DriverPosition, Location
    from matching.progress import Check, ProgressParams
    from matching.store import Checks
    from routing.model import Floats32, Router
    from routing.sources import RouterSource

log = structlog.get_logger(__name__)

_BATCH = 250
"""Judged in a few milliseconds."""
_LOOKS_A_PERIOD = 10


class Minder:
    """Acts on rides whose driver has gone, without anybody saying so."""

    def __init__(
        self,
        checks: Checks,
        location: Location,
        sources: Mapping[CityId, RouterSource],
        changer: Changer,
        clock: Clock,
        params: Mapping[CityId, ProgressParams],
    ) -> None:
        self._checks = checks
        self._location = location
        self._sources = sources
        self._changer = changer
        self._clock = clock
        self._params = params

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """One loop per city: each look takes those that are due, a tenth of all."""
        return {
            f"minder {city_id}": every(params.progress_check_s / _LOOKS_A_PERIOD, partial(self.look_at, city_id), self._clock)
            for city_id, params in self._params.items()
        }

    async def look_at(self, city_id: CityId) -> None:
        """Looks at every driver of the city who is due. Where location or the roads do not answer, nothing follows.

        Raises STORE_UNAVAILABLE, PEER_UNAVAILABLE.
        """
        period_ms = round(self._params[city_id].progress_check_s * MS_PER_S)
        while True:
            due = await self._checks.lease_checks(city_id, self._clock.now_ms(), period_ms, _BATCH)
            if due:
                await self._look(city_id, due)
            if len(due) < _BATCH:
                return

    async def _look(self, city_id: CityId, due: Sequence[Check]) -> None:
        epoch, complete = await self._location.epoch(city_id)
        if not complete:
            return
        positions = await self._location.positions(city_id, sorted({check.driver_id for check in due}))
        times_s = await self._times_left_s(city_id, due, positions)
        now_ms = self._clock.now_ms()
        judged = []
        for check in due:
            position = positions.get(check.driver_id)
            sight = Sight(epoch, now_ms - position.age_ms if position else None, times_s.get(check.ride_id))
            judged.append((check, *judge(check, sight, now_ms, self._params[city_id])))
        await self._checks.keep_watches([(check, watch) for check, watch, _ in judged])
        for check, _, verdict in judged:
            if verdict is not Verdict.FINE:
                await self._end(check, verdict)

    async def _times_left_s(
        self, city_id: CityId, due: Sequence[Check], positions: Mapping[str, DriverPosition]
    ) -> dict[str, float]:
        """Seconds to the pickup, of rides whose driver is on the way there: those for which the city's own router knows them."""
        on_the_way = [check for check in due if check.state is RideState.ACCEPTED and check.driver_id in positions]
        if not on_the_way:
            return {}
        here = np.array([(p.lat, p.lng) for p in (positions[check.driver_id].place for check in on_the_way)])
        there = np.array([(check.pickup.lat, check.pickup.lng) for check in on_the_way])
        now_ms = self._clock.now_ms()

        def times(router: Router) -> Floats32:
            return router.pair_times_s(here, there, now_ms)

        answer = await self._sources[city_id].ask(times)
        if answer.fell_back:
            return {}  # another router's times would not compare with those of the last check
        known = zip(on_the_way, answer.value.tolist(), strict=True)
        return {check.ride_id: time_s for check, time_s in known if np.isfinite(time_s)}

    async def _end(self, check: Check, verdict: Verdict) -> None:
        kind = NoProgress if verdict is Verdict.NO_PROGRESS else DriverSilent
        log.info("driver gone", ride_id=check.ride_id, driver_id=check.driver_id, verdict=verdict)
        try:
            await self._changer.change(self._changer.ride(check.ride_id), kind(check.driver_id, check.version), "system")
        except DomainError as error:
            log.warning("driver left where it is", ride_id=check.ride_id, reason=error.reason)
