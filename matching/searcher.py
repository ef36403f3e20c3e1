"""Finds drivers for a ride: asks location, routing, PostgreSQL and the sessions, ranks, claims, and offers the ride."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import DriverId, OfferId, mint
from hexhail.kernel.units import MS_PER_S
from matching.candidates import consider, with_outcome
from matching.driver_columns import candidates_of, facts_of
from matching.model import OffersPlanned, PlannedOffer, RideState
from matching.offers import next_phase
from matching.store import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.candidates import Consideration
    from matching.changer import Changer
    from matching.model import Ride
    from matching.params import MatchingParams
    from matching.peers import Location, Nearby
    from matching.policies import Ranker
    from matching.store import Claims, Drivers, Rides, Sessions
    from routing.model import Floats32, Router
    from routing.sources import RouterSource

log = structlog.get_logger(__name__)

_ATTEMPTS = 3
_CLAIM_MARGIN_MS = 2_000


class Searcher:
    """One search makes the offers of one phase."""

    def __init__(
        self,
        location: Location,
        rides: Rides,
        drivers: Drivers,
        sessions: Sessions,
        claims: Claims,
        changer: Changer,
        cities: Cities,
        sources: Mapping[CityId, RouterSource],
        rankers: Mapping[CityId, Ranker],
        params: Mapping[CityId, MatchingParams],
        clock: Clock,
    ) -> None:
        self._location = location
        self._rides = rides
        self._drivers = drivers
        self._sessions = sessions
        self._claims = claims
        self._changer = changer
        self._cities = cities
        self._sources = sources
        self._rankers = rankers
        self._params = params
        self._clock = clock

    async def search(self, ride: Ride) -> None:
        """Offers a searching ride to the drivers of its next phase. A ride that has gone on meanwhile is left alone.

        Raises PEER_UNAVAILABLE and STORE_UNAVAILABLE: the ride's deadline stands, so it will be searched again.
        """
        for _ in range(_ATTEMPTS):
            if ride.state is not RideState.SEARCHING:
                return
            consideration = await self._consider(ride)
            asked, consideration = await self._claim(ride, consideration)
            try:
                await self._offer(ride, asked, consideration)
            except (Conflict, DomainError) as problem:
                await self._release(ride, [consideration.candidates.driver_ids[row] for row in asked])
                if not isinstance(problem, Conflict):
                    raise
                ride = await self._rides.ride(ride.ride_id)
            else:
                return

    async def _consider(self, ride: Ride) -> Consideration:
        params = self._params[ride.city_id]
        phase = next_phase(ride)
        wanted = params.offers.phase(phase)
        pages: list[Nearby] = []
        token = ""
        while True:
            pages.append(
                await self._location.nearby(
                    ride.city_id,
                    ride.pickup,
                    max(params.search.candidates, 3 * wanted.size),
                    wanted.radius_m,
                    self._cities[ride.city_id].product(ride.product).capabilities,
                    token,
                )
            )
            token = pages[-1].next_page_token
            consideration = await self._consider_pages(ride, phase, pages)
            enough = len(consideration.eligible()) >= wanted.size
            if enough or not token or len(pages) >= params.search.max_pages:
                return consideration

    async def _consider_pages(self, ride: Ride, phase: int, pages: list[Nearby]) -> Consideration:
        ids = tuple(driver_id for page in pages for driver_id in page.driver_ids)
        places = np.concatenate([page.places for page in pages])
        known = await self._drivers.drivers(ride.city_id, ids) if ids else {}
        with_session = await self._sessions.with_session(ride.city_id, ids)
        pickup = np.array([[ride.pickup.lat, ride.pickup.lng]])
        now_ms = self._clock.now_ms()

        def pickup_times(router: Router) -> Floats32:
            return router.times_s(places, pickup, now_ms)[:, 0]

        eta_s = await self._sources[ride.city_id].ask(pickup_times)
        rows = [known.get(i) for i in ids]
        candidates = candidates_of(
            ids,
            rows,
            places,
            np.concatenate([page.heading_deg for page in pages]),
            np.concatenate([page.distance_m for page in pages]),
            np.asarray(eta_s.value, np.float64),
            ride.pickup,
            now_ms,
        )
        return consider(
            ride,
            phase,
            candidates,
            facts_of(ids, rows, with_session),
            await self._rankers[ride.city_id].rank(candidates),
            searched_radius_m=pages[-1].searched_radius_m,
            complete=all(page.complete for page in pages),
            as_of_ms=pages[0].as_of_ms,
            travel_times_version=eta_s.version,
            travel_times_fell_back=eta_s.fell_back,
            left_out=tuple({each.driver_id: each for page in pages for each in page.left_out}.values()),
        )

    async def _claim(self, ride: Ride, consideration: Consideration) -> tuple[list[int], Consideration]:
        """Rows of the drivers to ask, claimed best first, and the consideration with everybody's outcome."""
        phase = self._params[ride.city_id].offers.phase(consideration.phase)
        ttl_ms = round(phase.timeout_s * MS_PER_S) + _CLAIM_MARGIN_MS
        waiting, asked, missed = consideration.eligible(), list[int](), list[int]()
        while waiting and len(asked) < phase.size:
            rows, waiting = waiting[: phase.size - len(asked)], waiting[phase.size - len(asked) :]
            driver_ids = [consideration.candidates.driver_ids[row] for row in rows]
            try:
                won = await self._claims.claim_drivers(ride.city_id, driver_ids, ride.ride_id, ttl_ms)
            except DomainError as error:
                log.warning("offering without claims", reason=error.reason, ride_id=ride.ride_id)
                won = [True] * len(rows)  # the unique index on live offers decides alone
            for row, ours in zip(rows, won, strict=True):
                (asked if ours else missed).append(row)
        return asked, with_outcome(consideration, asked, missed)

    async def _offer(self, ride: Ride, asked: list[int], consideration: Consideration) -> None:
        now_ms = self._clock.now_ms()
        candidates = consideration.candidates
        planned = tuple(
            PlannedOffer(
                OfferId(mint(ride.city_id, now_ms)),
                DriverId(candidates.driver_ids[row]),
                round(float(candidates.pickup_eta_s[row])),
                round(float(candidates.distance_m[row])),
            )
            for row in asked
        )
        decision = self._changer.decide(
            ride, OffersPlanned(consideration.phase, planned, consideration.complete, consideration.travel_times_version)
        )
        if decision.ride is ride:
            return
        await self._changer.commit(ride, decision, "system", consideration=consideration)

    async def _release(self, ride: Ride, driver_ids: list[str]) -> None:
        try:
            await self._claims.release_drivers(ride.city_id, driver_ids, ride.ride_id)
        except DomainError as error:
            if error.reason is not Reason.STORE_UNAVAILABLE:
                raise
            log.warning("claims left to expire", reason=error.reason, ride_id=ride.ride_id)
