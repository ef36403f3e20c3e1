"""Repairs what a crash left between PostgreSQL, Valkey and location's states, at the start and every few seconds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError, Reason
from matching.model import OfferWithdrawn
from matching.reconciling import HeldClaim, Repair, left_behind, mended, taken_back
from matching.store import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId, OfferId
    from matching.changer import Changer
    from matching.metrics import MatchingMetrics
    from matching.model import Ride
    from matching.offers import OfferParams
    from matching.reconciling import Mending
    from matching.store import Broken, KeptClaims, KeptSessions, Leases, Rides
    from matching.teller import Teller

log = structlog.get_logger(__name__)

PERIOD_S = 5.0
_LEASE_MS = 12_000
_GRACE_MS = 3_000
"""So long a search may take from claiming to offering, and a worker from taking a driver offline to declining its offers."""
_LONGEST_LEASE_MS = 60_000
_OVERLAP_MS = 10_000
_LONG_AGO_MS = 600_000
_BATCH = 100
_SESSIONS_EVERY = 12


class Reconciler:
    """The repairs of some cities; one worker at a time looks at each."""

    def __init__(
        self,
        leases: Leases,
        broken: Broken,
        rides: Rides,
        claims: KeptClaims,
        sessions: KeptSessions,
        changer: Changer,
        teller: Teller,
        clock: Clock,
        params: Mapping[CityId, OfferParams],
        metrics: Mapping[str, MatchingMetrics],
    ) -> None:
        self._leases = leases
        self._broken = broken
        self._rides = rides
        self._claims = claims
        self._sessions = sessions
        self._changer = changer
        self._teller = teller
        self._clock = clock
        self._params = params
        self._metrics = metrics
        self._told_until_ms: dict[CityId, int] = {}
        self._looks = 0

    async def run(self) -> None:
        """Looks at all cities, again and again, for ever."""
        while True:
            try:
                await self.look()
            except DomainError as error:
                log.warning("repairs postponed", reason=error.reason)
            await self._clock.sleep(PERIOD_S)

    async def look(self) -> None:
        """Looks once at every city of which no other worker has the lease. Raises STORE_UNAVAILABLE."""
        for city_id in self._params:
            if await self._leases.take(f"reconciler/{city_id}", self._clock.now_ms(), _LEASE_MS) is not None:
                await self.look_at(city_id)
        self._looks += 1

    async def look_at(self, city_id: CityId) -> None:
        """Looks once at one city. What cannot be looked at for lack of a store or of location is looked at next time."""
        before = Counter(self._metrics[city_id].repairs)
        steps = [self._mend_rides, self._cut_leases, self._withdraw_offers, self._release_claims, self._tell_states]
        if self._looks % _SESSIONS_EVERY == 0:
            steps.append(self._drop_sessions)
        for step in steps:
            await self._tried(step, city_id)
        repaired = self._metrics[city_id].repairs - before
        if repaired:
            log.warning("repaired", city_id=city_id, **{kind.value: count for kind, count in repaired.items()})

    async def close(self) -> None:
        """Leaves the leases to others."""
        try:
            for city_id in self._params:
                await self._leases.give_up(f"reconciler/{city_id}")
        except DomainError as error:
            log.warning("leases left to expire", reason=error.reason)

    async def _tried(self, step: Callable[[CityId], Awaitable[None]], city_id: CityId) -> None:
        try:
            await step(city_id)
        except DomainError as error:
            log.warning("repair postponed", city_id=city_id, step=step.__name__, reason=error.reason)

    async def _mend_rides(self, city_id: CityId) -> None:
        for ride, bound_driver_id in await self._broken.contradictory(city_id, _BATCH):
            mending = mended(ride, bound_driver_id, self._clock.now_ms(), self._params[city_id])
            if mending is None:
                log.error("a ride contradicts itself, and no rule says how", ride_id=ride.ride_id, state=ride.state)
            elif not await self._mend(ride, mending):
                await self._mend(ride, taken_back(ride, self._clock.now_ms()))

    async def _mend(self, ride: Ride, mending: Mending) -> bool:
        """Was it mended, or changed by another? Not so where the driver is bound elsewhere."""
        try:
            await self._changer.commit(ride, mending.decision, "system", restores=mending.restores)
        except Conflict:
            return True  # whoever changed it was first; the next look sees what is so then
        except DomainError as refusal:
            if refusal.reason is not Reason.DRIVER_BUSY or not mending.restores:
                raise
            return False
        self._metrics[ride.city_id].repairs.update(mending.repairs)
        return True

    async def _cut_leases(self, city_id: CityId) -> None:
        now_ms = self._clock.now_ms()
        self._count(city_id, Repair.LEASE_CUT, await self._broken.cut_leases(city_id, now_ms, now_ms + _LONGEST_LEASE_MS))

    async def _withdraw_offers(self, city_id: CityId) -> None:
        for offer_id in await self._broken.offers_to_gone(city_id, self._clock.now_ms() - _GRACE_MS):
            await self._withdraw(offer_id)
            self._count(city_id, Repair.OFFER_WITHDRAWN, 1)

    async def _withdraw(self, offer_id: OfferId) -> None:
        await self._changer.change(self._changer.ride_of_offer(offer_id), OfferWithdrawn(offer_id), "system")

    async def _release_claims(self, city_id: CityId) -> None:
        held: list[HeldClaim] = []
        async for page in self._claims.held(city_id):
            held += page
        if not held:
            return
        live: set[tuple[str, str]] = {
            (driver_id, ride_id) for driver_id, _, ride_id in await self._rides.all_live_offers(city_id)
        }
        over = left_behind(held, live, self._clock.now_ms(), _GRACE_MS)
        if over:
            self._count(city_id, Repair.CLAIM_RELEASED, await self._claims.drop(city_id, over))

    async def _drop_sessions(self, city_id: CityId) -> None:
        self._count(city_id, Repair.SESSION_DROPPED, await self._sessions.drop_expired(city_id))

    async def _tell_states(self, city_id: CityId) -> None:
        now_ms = self._clock.now_ms()
        from_ms = self._told_until_ms.get(city_id, now_ms - _LONG_AGO_MS) - _OVERLAP_MS
        await self._teller.tell_changed(city_id, from_ms, now_ms)
        self._told_until_ms[city_id] = now_ms

    def _count(self, city_id: CityId, kind: Repair, count: int) -> None:
        if count:
            self._metrics[city_id].repairs[kind] += count
