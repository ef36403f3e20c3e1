"""Leads a batched city: every window, all who wait for a driver and all drivers near them, one assignment, one offer a ride."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.geo import bearings_deg, distances_m
from hexhail.kernel.ids import DriverId, OfferId, mint
from hexhail.kernel.units import MS_PER_S, Ints
from matching.candidates import consider
from matching.driver_columns import candidates_of, facts_of, idle_of
from matching.model import OffersPlanned, PlannedOffer
from matching.offers import next_phase
from matching.ranking import PolicyError
from matching.solver import SolverError
from matching.store import Conflict
from matching.window import Reach, Scores, Window, WindowAssigned, given_to, ranking_in, window_of, with_window_outcome
from routing.soonest import Soonest, soonest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Floats
    from matching.candidates import Consideration, DriverFacts
    from matching.changer import Changer
    from matching.metrics import MatchingMetrics
    from matching.model import Ride
    from matching.params import MatchingParams
    from matching.peers import NearbyMany, Surroundings
    from matching.policies import Ranker
    from matching.ranking import Candidates
    from matching.solver import Solver
    from matching.store import Claims, Driver, Drivers, Leases, Sessions, Windows
    from routing.model import Router
    from routing.sources import Answered, RouterSource

log = structlog.get_logger(__name__)

_PLACES_AT_ONCE: Final = 250
"""Pickups that location, and then the router, are asked about in one go: some milliseconds of anybody's time."""
_DRIVERS_AT_ONCE: Final = 500
_OFFERS_AT_ONCE: Final = 8
_CLAIM_MARGIN_MS: Final = 2_000
_LEAST_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What a window sees.

    ids : str[n], drivers in the order of their ids
    places, heading_deg : float64[n, 2], float64[n]
    known : n, what PostgreSQL knows of them
    radius_m : of each ride, by its id, within which no driver was left out
    """

    ids: tuple[str, ...]
    places: Floats
    heading_deg: Floats
    known: tuple[Driver | None, ...]
    facts: DriverFacts
    radius_m: Mapping[str, float]
    complete: bool
    as_of_ms: int
    reach: Reach
    travel_times_version: str
    travel_times_fell_back: bool


class Batcher:
    """The windows of one city. Several workers have one: who has the lease leads, and what a stale leader does is refused, for
    every offer is committed at the version of the ride that its window saw, and no driver has two.
    """

    def __init__(
        self,
        city: City,
        location: Surroundings,
        windows: Windows,
        drivers: Drivers,
        sessions: Sessions,
        claims: Claims,
        leases: Leases,
        changer: Changer,
        source: RouterSource,
        ranker: Ranker,
        solver: Solver,
        clock: Clock,
        params: MatchingParams,
        metrics: MatchingMetrics,
    ) -> None:
        self._city = city
        self._location = location
        self._windows = windows
        self._drivers = drivers
        self._sessions = sessions
        self._claims = claims
        self._leases = leases
        self._changer = changer
        self._source = source
        self._ranker = ranker
        self._solver = solver
        self._clock = clock
        self._params = params
        self._metrics = metrics
        self._duty = f"windows/{city.city_id}"
        self._leads = False
        self._told_waiting_ms: dict[str, int] = {}
        """When the candidates of a ride that waits were logged last."""

    async def run(self) -> None:
        """Assigns window after window, for ever."""
        while True:
            began_ms = self._clock.now_ms()
            try:
                await self.lead()
            except (DomainError, SolverError) as error:
                log.warning("window postponed", city_id=self._city.city_id, error=str(error))
            taken_s = (self._clock.now_ms() - began_ms) / MS_PER_S
            await self._clock.sleep(max(self._params.batch.window_s - taken_s, _LEAST_PAUSE_S))

    async def lead(self) -> int:
        """One window, if this worker leads; how many offers it made. Raises PEER_UNAVAILABLE, STORE_UNAVAILABLE, SolverError."""
        lease_ms = round(self._params.batch.lease_s * MS_PER_S)
        term = await self._leases.take(self._duty, self._clock.now_ms(), lease_ms)
        if (term is not None) != self._leads:
            log.info("leads the windows" if term else "leads no more", city_id=self._city.city_id, term=term)
        self._leads = term is not None
        return await self.window() if self._leads else 0

    async def window(self) -> int:
        """One window, whoever leads; how many offers it made. Raises as `lead`."""
        rides = await self._windows.searching(self._city.city_id, self._params.batch.max_rides)
        rides.sort(key=lambda ride: ride.ride_id)
        self._told_waiting_ms = {r.ride_id: at for r in rides if (at := self._told_waiting_ms.get(r.ride_id)) is not None}
        if not rides:
            return 0
        scene = await self._seen(rides)
        window = window_of(
            self._city.city_id,
            rides,
            scene.ids,
            scene.reach,
            scene.facts,
            idle_of(scene.known, self._clock.now_ms()),
            self._params.batch.assignment,
            self._clock.now_ms(),
            travel_times_version=scene.travel_times_version,
            travel_times_fell_back=scene.travel_times_fell_back,
            complete=scene.complete,
            scores=None if self._ranker.is_built_in else await self._scores(scene, rides),
        )
        assignment = await self._solver.assign(window.pairs(), window.waiting_milli, len(scene.ids))
        await self._windows.log(WindowAssigned(window, assignment))
        self._metrics.windows += 1
        drivers = given_to(window, assignment)
        given, turns = {driver for driver in drivers if driver}, asyncio.Semaphore(_OFFERS_AT_ONCE)

        async def apply(number: int, driver_id: str) -> int:
            async with turns:
                return await self._applied(scene, window, number, driver_id, given)

        made = await asyncio.gather(*(apply(number, driver_id) for number, driver_id in enumerate(drivers)))
        self._metrics.window_offers += sum(made)
        self._metrics.window_waits += len(rides) - len(given)
        return sum(made)

    async def close(self) -> None:
        """Lets another worker lead at once."""
        if not self._leads:
            return
        self._leads = False
        try:
            await self._leases.give_up(self._duty)
        except DomainError as error:
            log.warning("lease left to expire", city_id=self._city.city_id, reason=error.reason)

    async def _seen(self, rides: Sequence[Ride]) -> _Scene:
        """Everybody near these rides, what is known of them, and how soon they could be there."""
        groups: dict[str, list[int]] = {}
        for number, ride in enumerate(rides):
            groups.setdefault(ride.product, []).append(number)
        portions = [
            (product, numbers[first : first + _PLACES_AT_ONCE])
            for product, numbers in groups.items()
            for first in range(0, len(numbers), _PLACES_AT_ONCE)
        ]
        found = [await self._near(product, [rides[number] for number in numbers]) for product, numbers in portions]
        merged: dict[str, tuple[float, float, float]] = {}
        for near in found:
            columns = (near.driver_ids, near.places.tolist(), near.heading_deg.tolist())
            merged.update((i, (lat, lng, heading)) for i, (lat, lng), heading in zip(*columns, strict=True))
        ids = tuple(sorted(merged))
        seen = np.array([merged[i] for i in ids], np.float64).reshape(-1, 3)
        places, number_of = seen[:, :2], {driver_id: number for number, driver_id in enumerate(ids)}
        able = {
            product: np.array(
                sorted(
                    {number_of[i] for (p, _), near in zip(portions, found, strict=True) if p == product for i in near.driver_ids}
                ),
                np.int64,
            )
            for product in groups
        }
        parts, versions, fell_back = list[tuple[Soonest, list[int], Ints]](), set[str](), False
        for product, numbers in portions:
            asked = await self._soonest(places[able[product]], [rides[number] for number in numbers])
            parts.append((asked.value, numbers, able[product]))
            versions.add(asked.version)
            fell_back |= asked.fell_back
        known = await self._known(ids)
        with_session = await self._sessions.with_session(self._city.city_id, ids)
        radii = [
            zip(numbers, near.searched_radius_m.tolist(), strict=True) for (_, numbers), near in zip(portions, found, strict=True)
        ]
        return _Scene(
            ids=ids,
            places=places,
            heading_deg=seen[:, 2],
            known=known,
            facts=facts_of(ids, known, with_session),
            radius_m={rides[number].ride_id: radius for each in radii for number, radius in each},
            complete=all(near.complete for near in found),
            as_of_ms=min(near.as_of_ms for near in found),
            reach=_reach(parts),
            travel_times_version="+".join(sorted(versions)),
            travel_times_fell_back=fell_back,
        )

    async def _near(self, product: str, rides: Sequence[Ride]) -> NearbyMany:
        batch = self._params.batch
        capabilities = self._city.product(product).capabilities
        return await self._location.nearby_many(
            self._city.city_id, _pickups(rides), batch.looked_at, batch.radius_m, capabilities
        )

    async def _soonest(self, places: Floats, rides: Sequence[Ride]) -> Answered[Soonest]:
        batch, pickups, now_ms = self._params.batch, _pickups(rides), self._clock.now_ms()

        def question(router: Router) -> Soonest:
            return soonest(router, places, pickups, batch.looked_at, batch.assignment.pickup_limit_s, now_ms)

        await asyncio.sleep(0)  # others have their turn between one portion and the next
        return await self._source.ask(question)

    async def _known(self, ids: Sequence[str]) -> tuple[Driver | None, ...]:
        known: dict[str, Driver] = {}
        for first in range(0, len(ids), _DRIVERS_AT_ONCE):
            known |= await self._drivers.drivers(self._city.city_id, ids[first : first + _DRIVERS_AT_ONCE])
        return tuple(known.get(driver_id) for driver_id in ids)

    async def _scores(self, scene: _Scene, rides: Sequence[Ride]) -> Scores:
        """What the city's own policy says of every pair, or why it says nothing."""
        policy, reach, now_ms = self._params.ranking.policy, scene.reach, self._clock.now_ms()

        def pairs() -> Candidates:
            pickups, places = _pickups(rides)[reach.ride], scene.places[reach.driver]
            nowhere, here = np.zeros(len(scene.ids)), rides[0].pickup
            drivers = candidates_of(scene.ids, scene.known, scene.places, scene.heading_deg, nowhere, nowhere, here, now_ms)
            return replace(
                drivers.take(reach.driver),
                distance_m=distances_m(pickups[:, 0], pickups[:, 1], places[:, 0], places[:, 1]),
                pickup_eta_s=reach.pickup_ms / MS_PER_S,
                bearing_deg=bearings_deg(places[:, 0], places[:, 1], pickups[:, 0], pickups[:, 1]),
            )

        if not len(reach.ride):
            return Scores(policy, {})
        try:
            parts = await self._ranker.parts(await asyncio.to_thread(pairs), self._params.batch.policy_limit_ms)
        except PolicyError as error:
            return Scores(policy, {}, error.failure)
        return Scores(policy, parts)

    async def _applied(self, scene: _Scene, window: Window, number: int, driver_id: str, given: set[str]) -> int:
        """Makes the ride's offer, or says now and then why it waits; the offers made. The ride may have gone on meanwhile."""
        ride, now_ms = window.rides[number], self._clock.now_ms()
        if not driver_id and now_ms < self._told_waiting_ms.get(ride.ride_id, 0) + self._params.batch.told_waiting_s * MS_PER_S:
            return 0
        if driver_id and not await self._claim(ride, driver_id):
            return 0  # somebody else is asking that driver, perhaps another leader, and perhaps for this very ride
        outcome = with_window_outcome(self._consideration(scene, window, number), driver_id, given)
        planned = (_offer(ride, outcome, driver_id, now_ms),) if driver_id else ()
        event = OffersPlanned(outcome.phase, planned, outcome.complete, outcome.travel_times_version)
        try:
            decision = self._changer.decide(ride, event)
            await self._changer.commit(ride, decision, "system", consideration=outcome)
        except (Conflict, DomainError) as problem:
            log.info("a window came too late", ride_id=ride.ride_id, problem=str(problem))
            if driver_id:
                await self._release(ride, driver_id)
            return 0
        if not driver_id:
            self._told_waiting_ms[ride.ride_id] = now_ms
        return len(planned)

    def _consideration(self, scene: _Scene, window: Window, number: int) -> Consideration:
        ride, reach = window.rides[number], window.reach
        first, end = np.searchsorted(reach.ride, (number, number + 1)).tolist()
        rows, pickup_ms = reach.driver[first:end], reach.pickup_ms[first:end]
        ids = tuple(scene.ids[row] for row in rows.tolist())
        known = [scene.known[row] for row in rows.tolist()]
        places, pickup = scene.places[rows], ride.pickup
        candidates = candidates_of(
            ids,
            known,
            places,
            scene.heading_deg[rows],
            distances_m(pickup.lat, pickup.lng, places[:, 0], places[:, 1]),
            pickup_ms / MS_PER_S,
            pickup,
            window.at_ms,
        )
        return consider(
            ride,
            next_phase(ride),
            candidates,
            scene.facts.take(rows),
            ranking_in(window, number),
            searched_radius_m=scene.radius_m[ride.ride_id],
            complete=scene.complete,
            as_of_ms=scene.as_of_ms,
            travel_times_version=scene.travel_times_version,
            travel_times_fell_back=scene.travel_times_fell_back,
        )

    async def _claim(self, ride: Ride, driver_id: str) -> bool:
        phase = self._params.offers.phase(next_phase(ride))
        ttl_ms = round(phase.timeout_s * MS_PER_S) + _CLAIM_MARGIN_MS
        try:
            (won,) = await self._claims.claim_drivers(ride.city_id, [driver_id], ride.ride_id, ttl_ms)
        except DomainError as error:
            log.warning("offering without claims", reason=error.reason, ride_id=ride.ride_id)
            return True  # the unique index on live offers decides alone
        return won

    async def _release(self, ride: Ride, driver_id: str) -> None:
        try:
            await self._claims.release_drivers(ride.city_id, [driver_id], ride.ride_id)
        except DomainError as error:
            log.warning("claims left to expire", reason=error.reason, ride_id=ride.ride_id)


def _pickups(rides: Sequence[Ride]) -> Floats:
    return np.array([(ride.pickup.lat, ride.pickup.lng) for ride in rides], np.float64).reshape(-1, 2)


def _reach(parts: Sequence[tuple[Soonest, list[int], Ints]]) -> Reach:
    """What was found for some rides among some drivers, by the numbers that both have in the window, ride after ride."""
    ride = np.concatenate([np.array(numbers, np.int64)[found.destination] for found, numbers, _ in parts])
    driver = np.concatenate([able[found.origin] for found, _, able in parts])
    order = np.argsort(ride, kind="stable")
    return Reach(ride[order], driver[order], np.concatenate([found.time_ms for found, _, _ in parts])[order])


def _offer(ride: Ride, outcome: Consideration, driver_id: str, now_ms: int) -> PlannedOffer:
    candidates = outcome.candidates
    row = candidates.driver_ids.index(driver_id)
    eta_s, distance_m = float(candidates.pickup_eta_s[row]), float(candidates.distance_m[row])
    return PlannedOffer(OfferId(mint(ride.city_id, now_ms)), DriverId(driver_id), round(eta_s), round(distance_m))
