"""What becomes of an hour's requests if they are dispatched so? Event by event, by the policies of the live service. Pure.

`matching.offers` decides what happens to each ride, and a dispatcher says whom to ask. Stores, network and claims are left out:
a question takes no time, and nobody asks the same driver meanwhile. Places are junctions; drivers stay where a ride ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId, QuoteId, RideId, RiderId
from matching.model import (
    DeadlinePassed,
    DriverArrived,
    OfferAccepted,
    OfferDeclined,
    OfferState,
    QuoteFacts,
    Ride,
    RideCompleted,
    RideStarted,
    RideState,
    Stop,
)
from matching.offers import begin, decide, search_is_over
from matching.records import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.dispatch_world import Demand, Fleet, Streets
    from benchmarks.people import People
    from hexhail.kernel.units import Bools, Floats, Ints
    from matching.model import Decision, Event, Offer, OffersPlanned
    from matching.offers import OfferParams

NEVER: Final = -1
CITY: Final = CityId("replayed")
_NO_QUOTE: Final = QuoteFacts(QuoteId("replayed"), 0, "USD", 1_000, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of each request: one row each. Times and drivers are -1 where they never came.

    requested_ms, accepted_ms, arrived_ms, completed_ms, driver : int64[n]
    states : of each ride at the end
    offers : int64[n], how many drivers were asked
    deadhead_m : float64[n], by road from where the driver was to the pickup; 0 without one
    drivers : how many there were
    """

    requested_ms: Ints
    accepted_ms: Ints
    arrived_ms: Ints
    completed_ms: Ints
    driver: Ints
    states: tuple[RideState, ...]
    offers: Ints
    deadhead_m: Floats
    drivers: int

    @property
    def served(self) -> Bools:
        """bool[n]: a driver came."""
        return np.asarray(self.arrived_ms != NEVER, dtype=np.bool_)


class Dispatcher(Protocol):
    """Says who is asked for a ride, by `replay.offer`, now or later."""

    def search(self, replay: Replay, ride: int, now_ms: int) -> None:
        """A ride is to be searched: it is new, or those who were asked have not taken it."""
        ...


class Replay:
    """One run: requests come in, drivers are asked, drive, and are free again, until every ride is over."""

    def __init__(
        self, streets: Streets, demand: Demand, fleet: Fleet, people: People, params: OfferParams, dispatcher: Dispatcher
    ) -> None:
        self.streets = streets
        self.demand = demand
        self.fleet = fleet
        self.params = params
        self.rides: list[Ride] = []
        """By number; so many as were requested so far."""
        self._people = people
        self._dispatcher = dispatcher
        self._numbers: dict[str, int] = {driver_id: number for number, driver_id in enumerate(fleet.ids)}
        self._deadhead_m = np.zeros(len(demand))
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._planned = 0

    def run(self) -> Outcome:
        """Until nothing happens any more."""
        if len(self.demand):
            self.at(int(self.demand.at_ms[0]), self._request)
        while self._events:
            now_ms, _, happen = heappop(self._events)
            happen(now_ms)
        return self._outcome()

    def at(self, at_ms: int, happen: Callable[[int], None]) -> None:
        """Lets something happen then; of the same millisecond, what was planned first comes first."""
        heappush(self._events, (at_ms, self._planned, happen))
        self._planned += 1

    def offer(self, ride: int, plan: OffersPlanned, now_ms: int) -> None:
        """The outcome of a search."""
        self._decide(ride, plan, now_ms)

    def number_of(self, driver_id: str) -> int:
        """The driver of this id."""
        return self._numbers[driver_id]

    def _request(self, now_ms: int) -> None:
        number, demand = len(self.rides), self.demand
        stops = tuple(
            Stop(Place(*self.streets.places[junction].tolist())) for junction in (demand.pickups[number], demand.dropoffs[number])
        )
        name = f"r{number:06d}"
        ride = Ride(RideId(name), CITY, RiderId(name), "economy", stops, _NO_QUOTE, now_ms)
        self.rides.append(ride)
        if number + 1 < len(demand):
            self.at(int(demand.at_ms[number + 1]), self._request)
        self._settle(number, ride, begin(ride, now_ms, self.params))

    def _decide(self, ride: int, event: Event, now_ms: int) -> None:
        before = self.rides[ride]
        self._settle(ride, before, decide(before, event, now_ms, self.params))

    def _settle(self, number: int, before: Ride, decision: Decision) -> None:
        """Makes a decision true: offers are shown and withdrawn, and the next deadline is kept."""
        ride = decision.ride
        if ride is before:
            return
        self.rides[number] = ride
        if ride.offers is not before.offers:
            known = set(before.offers)
            for offer in ride.offers:
                if offer not in known:
                    self._tell(number, offer)
            for driver_id, answer in answers(before, decision):
                self.fleet.record(self._numbers[driver_id], answer)
        if ride.next_deadline_ms is not None:
            self.at(ride.next_deadline_ms, lambda at_ms: self._deadline(number, at_ms))
        if ride.state is RideState.SEARCHING and self.params.in_windows:
            self._dispatcher.search(self, number, ride.updated_at_ms)

    def _tell(self, ride: int, offer: Offer) -> None:
        driver = self._numbers[offer.driver_id]
        self.fleet.asked[driver] = offer.state is OfferState.LIVE
        if offer.state is not OfferState.LIVE:
            return
        accepts, after_ms = self._people.answer(ride, driver)
        self.at(offer.made_at_ms + after_ms, lambda now_ms: self._answer(ride, offer.offer_id, accepts, now_ms))

    def _answer(self, number: int, offer_id: str, accepts: bool, now_ms: int) -> None:
        offer = self.rides[number].offer(offer_id)
        if offer.state is not OfferState.LIVE:
            return
        if not accepts:
            self._decide(number, OfferDeclined(offer_id), now_ms)
            return
        driver, pickup, dropoff = (
            self._numbers[offer.driver_id],
            int(self.demand.pickups[number]),
            int(self.demand.dropoffs[number]),
        )
        here = int(self.fleet.at[driver])
        self._deadhead_m[number] = self.streets.distance_m(here, pickup)
        self.fleet.take(driver, dropoff)
        self._decide(number, OfferAccepted(offer_id), now_ms)
        arrives_ms = now_ms + self.streets.time_ms(here, pickup)
        begins_ms = arrives_ms + self._people.boarding_ms(number)
        self.at(arrives_ms, lambda at_ms: self._decide(number, DriverArrived(offer.driver_id), at_ms))
        self.at(begins_ms, lambda at_ms: self._decide(number, RideStarted(offer.driver_id), at_ms))
        self.at(begins_ms + self.streets.time_ms(pickup, dropoff), lambda at_ms: self._end(number, driver, at_ms))

    def _end(self, number: int, driver: int, now_ms: int) -> None:
        self._decide(number, RideCompleted(self.fleet.ids[driver]), now_ms)
        self.fleet.release(driver, now_ms)

    def _deadline(self, number: int, now_ms: int) -> None:
        """As `matching.timekeeper` has it: a ride that may still be searched is, and all else is decided."""
        ride = self.rides[number]
        if ride.next_deadline_ms is None or now_ms < ride.next_deadline_ms:
            return
        if ride.state is RideState.SEARCHING and not search_is_over(ride, now_ms, self.params):
            self._dispatcher.search(self, number, now_ms)
        else:
            self._decide(number, DeadlinePassed(), now_ms)

    def _outcome(self) -> Outcome:
        ends = [ride.assignment for ride in self.rides]

        def column(values: list[int]) -> Ints:
            return np.array(values, dtype=np.int64)

        return Outcome(
            requested_ms=self.demand.at_ms,
            accepted_ms=column([end.accepted_at_ms if end else NEVER for end in ends]),
            arrived_ms=column([(end.arrived_at_ms or NEVER) if end else NEVER for end in ends]),
            completed_ms=column([(end.completed_at_ms or NEVER) if end else NEVER for end in ends]),
            driver=column([self._numbers[end.driver_id] if end else NEVER for end in ends]),
            states=tuple(ride.state for ride in self.rides),
            offers=column([len(ride.offers) for ride in self.rides]),
            deadhead_m=self._deadhead_m,
            drivers=len(self.fleet),
        )
