"""What becomes of a ride: the case table on the pure function, the transition table, and what holds whatever happens."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import DriverId, OfferId, RideId, RiderId
from matching.candidates import consider
from matching.model import (
    ACTIVE,
    ASSIGNED,
    FINAL,
    TRANSITIONS,
    DeadlinePassed,
    DriverArrived,
    DriverCancelled,
    DriverSilent,
    EndedByOperator,
    Event,
    FactKind,
    NoProgress,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OffersPlanned,
    OfferState,
    OfferWithdrawn,
    PlannedOffer,
    ReassignedByOperator,
    RideCompleted,
    RiderCancelled,
    RiderFoundBusy,
    RideStarted,
    RideState,
)
from matching.offers import OfferParams, PhaseParams, begin, decide, schedule, search_is_over
from matching.rows import ride_line, ride_of_line
from matching.schedule import ScheduleParams
from tests.matching.rides import NEAREST_FIRST, NOW_MS, candidates, facts, offered, plan, searching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matching.model import Decision, Ride

CASES = json.loads((Path(__file__).parents[1] / "specs" / "lifecycle.json").read_text())["cases"]
PARAMS = OfferParams()

EVENTS: dict[str, Callable[[Ride], Event]] = {
    "offer": lambda ride: plan(ride, "d1"),
    "accept": lambda _: OfferAccepted("o-d1"),
    "decline": lambda _: OfferDeclined("o-d1"),
    "cancel": lambda _: RiderCancelled(),
    "give_back": lambda _: DriverCancelled("d1"),
    "arrive": lambda _: DriverArrived("d1"),
    "start": lambda _: RideStarted("d1"),
    "complete": lambda _: RideCompleted("d1"),
    "reassign": lambda _: ReassignedByOperator("test"),
    "end": lambda _: EndedByOperator("test"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']} ({len(case['steps'])})")
def test_case(case: dict[str, Any]) -> None:
    ride = searching()
    for happening, expected in case["steps"]:
        event = EVENTS[happening](ride)
        if expected in Reason.__members__:
            with pytest.raises(DomainError) as refused:
                decide(ride, event, NOW_MS, PARAMS)
            assert refused.value.reason == expected
        else:
            ride = decide(ride, event, NOW_MS, PARAMS).ride
            assert ride.state == expected


def test_final_states_have_no_way_out() -> None:
    assert set(TRANSITIONS) == set(RideState) - FINAL


def test_every_state_that_is_not_final_has_a_deadline() -> None:
    ride = offered("d1")
    for event in (OfferAccepted("o-d1"), DriverArrived("d1"), RideStarted("d1")):
        assert ride.next_deadline_ms is not None
        ride = decide(ride, event, NOW_MS, PARAMS).ride
    assert ride.next_deadline_ms is not None


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ((), RideState.EXPIRED),
        ((OfferAccepted("o-d1"),), RideState.CANCELLED_BY_SYSTEM),
        ((OfferAccepted("o-d1"), DriverArrived("d1")), RideState.NO_SHOW),
        ((OfferAccepted("o-d1"), DriverArrived("d1"), RideStarted("d1")), RideState.ENDED_BY_OPERATOR),
    ],
)
def test_a_ride_that_nobody_moves_ends_by_itself(events: tuple[Event, ...], end: RideState) -> None:
    ride, now_ms = offered("d1"), NOW_MS
    for event in events:
        ride = decide(ride, event, now_ms, PARAMS).ride
    while ride.state not in FINAL:
        assert ride.next_deadline_ms is not None
        now_ms = max(now_ms, ride.next_deadline_ms)
        if ride.state is RideState.SEARCHING and not search_is_over(ride, now_ms, PARAMS):
            ride = decide(ride, plan(ride), now_ms, PARAMS).ride
        else:
            ride = decide(ride, DeadlinePassed(), now_ms, PARAMS).ride
    assert ride.state is end
    assert not ride.live_offers()


def test_a_search_is_over_after_thirty_seconds_whatever_the_phases() -> None:
    ride = offered("d1", params=OfferParams(phases=(PhaseParams(1, 100.0, 1_000.0),)))
    assert ride.next_deadline_ms == NOW_MS + 30_000


def test_another_drivers_ride_cannot_be_moved() -> None:
    ride = decide(offered("d1", "d2"), OfferAccepted("o-d1"), NOW_MS, PARAMS).ride
    with pytest.raises(DomainError) as refused:
        decide(ride, DriverArrived("d2"), NOW_MS, PARAMS)
    assert refused.value.reason is Reason.NOT_YOURS


@pytest.mark.parametrize(("driver_id", "reason"), [("d1", Reason.OFFER_CLOSED), ("d2", Reason.ALREADY_TAKEN)])
def test_an_older_offer_is_taken_by_others_only(driver_id: str, reason: Reason) -> None:
    """Given a driver who has the ride by a second offer, since the first one was never shown: nobody else has taken that."""
    ride = offered("d1", "d2")
    late = decide(ride, DeadlinePassed(), ride.next_deadline_ms or 0, PARAMS).ride
    again = OffersPlanned(late.phase + 1, (PlannedOffer(OfferId("o-again"), DriverId("d1"), 60, 500),))
    asked = decide(late, again, late.updated_at_ms, PARAMS).ride
    taken = decide(asked, OfferAccepted("o-again"), late.updated_at_ms, PARAMS).ride
    with pytest.raises(DomainError) as refused:
        decide(taken, OfferAccepted(f"o-{driver_id}"), late.updated_at_ms, PARAMS)
    assert refused.value.reason is reason


def test_a_driver_is_asked_once_more_only_after_it_has_shown_nothing_against_the_ride() -> None:
    """Who gives a ride back has declined it: the offer says so for ever."""
    ride = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, PARAMS).ride
    given_back = decide(ride, DriverCancelled("d1"), NOW_MS, PARAMS).ride
    assert given_back.offer("o-d1").state is OfferState.DECLINED
    assert given_back.assignment is None


def test_an_offer_withdrawn_leaves_the_others_alone_and_the_last_one_has_the_ride_searched_again() -> None:
    ride = decide(offered("d1", "d2"), OfferWithdrawn("o-d1"), NOW_MS, PARAMS).ride
    assert (ride.state, [offer.offer_id for offer in ride.live_offers()]) == (RideState.OFFERED, ["o-d2"])
    assert decide(ride, OfferWithdrawn("o-d1"), NOW_MS, PARAMS).ride is ride
    ride = decide(ride, OfferWithdrawn("o-d2"), NOW_MS, PARAMS).ride
    assert (ride.state, ride.next_deadline_ms) == (RideState.SEARCHING, NOW_MS)


def test_what_an_operator_says_is_kept() -> None:
    ride = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, PARAMS).ride
    assert [fact.text for fact in decide(ride, EndedByOperator("why"), NOW_MS, PARAMS).facts] == ["why", "why"]
    assert [fact.text for fact in decide(ride, ReassignedByOperator("why"), NOW_MS, PARAMS).facts] == ["why"]


class Refused(Exception):
    """The fence let a change not come about; nothing has changed."""


class Fence:
    """What PostgreSQL holds, as far as it refuses changes: versions, and its unique indexes."""

    def __init__(self) -> None:
        self.rides: dict[str, Ride] = {}
        self.driven: dict[str, str] = {}
        """Driver -> ride, while an assignment is active; driven by facts, as the store's table is."""

    def commit(self, before: Ride | None, decision: Decision) -> None:
        """Makes a decision true, or none of it. Raises Refused."""
        after = decision.ride
        if before is not None and self.rides[before.ride_id].version != before.version:
            raise Refused("others were first")
        others = [ride for ride_id, ride in self.rides.items() if ride_id != after.ride_id]
        if after.state in ACTIVE and any(ride.rider_id == after.rider_id for ride in others if ride.state in ACTIVE):
            raise Refused("the rider is on another ride")
        asked = {offer.driver_id for offer in after.live_offers()}
        if asked & {offer.driver_id for ride in others for offer in ride.live_offers()}:
            raise Refused("a driver has another live offer")
        driven = dict(self.driven)
        for fact in decision.facts:
            if fact.kind is FactKind.ASSIGNMENT_ENDED:
                assert driven.pop(fact.driver_id) == after.ride_id, "an assignment ends that never began"
            elif fact.kind is FactKind.ASSIGNMENT_BEGAN:
                if fact.driver_id in driven:
                    raise Refused("the driver is on another ride")
                driven[fact.driver_id] = after.ride_id
        self.rides[after.ride_id], self.driven = after, driven


EVENTS_DRIVEN = {
    DeadlinePassed,
    OffersPlanned,
    OfferShown,
    OfferAccepted,
    OfferDeclined,
    OfferWithdrawn,
    RiderCancelled,
    RiderFoundBusy,
    ReassignedByOperator,
    EndedByOperator,
    DriverCancelled,
    NoProgress,
    DriverSilent,
    DriverArrived,
    RideStarted,
    RideCompleted,
}
BY_A_DRIVER: tuple[Callable[[str], Event], ...] = (DriverArrived, RideStarted, RideCompleted, DriverCancelled)
LOST: tuple[Callable[[str, int], Event], ...] = (NoProgress, DriverSilent)
SHORT = OfferParams(
    phases=(PhaseParams(3, 60.0, 1_000.0),),
    search_limit_s=240.0,
    retry_s=10.0,
    schedule=ScheduleParams(min_ahead_s=60.0, expected_pickup_s=120.0, max_pickup_s=300.0, margin_s=60.0, late_s=300.0),
)
STEPS: dict[RideState, Callable[[str], Event]] = {
    RideState.ACCEPTED: DriverArrived,
    RideState.ARRIVED: RideStarted,
    RideState.IN_PROGRESS: RideCompleted,
}
DRIVERS = tuple(f"d{number}" for number in range(5))


def test_the_histories_below_hold_everything_that_can_happen() -> None:
    assert set(get_args(Event)) == EVENTS_DRIVEN


class AnyHistory(RuleBasedStateMachine):
    """Several rides of three riders, and five drivers: whatever happens in whatever order, these things hold."""

    @initialize(steps=st.tuples(*[st.integers(0, 3)] * 2))
    def begin(self, steps: tuple[int, int]) -> None:
        """Two riders have rides that have come so far, a third one's is for later."""
        self.now_ms = NOW_MS
        self.fence = Fence()
        self.offer_count = 0
        self.refusing: set[tuple[str, str]] = set()
        """Ride and driver, where the driver declined it, gave it back, or was taken off it."""
        self.prepared: list[tuple[Ride, Decision]] = []
        self.finals: dict[str, Ride] = {}
        self.fees: dict[str, int] = {}
        for rider, ahead_s in enumerate((None, None, 700)):
            self.want(rider, ahead_s)
        for ride, driver_id, count in zip(self.rides, DRIVERS, steps, strict=False):
            self.happen(ride, self.plan(ride, [driver_id]))
            offer_id = self.fence.rides[ride.ride_id].offers[0].offer_id
            course = (OfferAccepted(offer_id), DriverArrived(driver_id), RideStarted(driver_id))
            for event in course[:count]:
                self.happen(self.fence.rides[ride.ride_id], event)

    @property
    def rides(self) -> list[Ride]:
        return list(self.fence.rides.values())

    def decide(self, ride: Ride, event: Event) -> Decision | None:
        try:
            decision = decide(ride, event, self.now_ms, SHORT)
        except DomainError:
            return None
        if decision.ride is ride:
            assert not decision.facts
            return None
        assert decision.ride.version == ride.version + 1
        assert decision.ride.state in TRANSITIONS[ride.state][event.kind]
        assert decision.facts or isinstance(event, OffersPlanned), "a version of which the event log would say nothing"
        return decision

    def commit(self, before: Ride | None, decision: Decision) -> None:
        self.fence.commit(before, decision)
        after = decision.ride
        for fact in decision.facts:
            if fact.kind is FactKind.FEE_DUE:
                self.fees[after.ride_id] = self.fees.get(after.ride_id, 0) + 1
            if fact.kind in {FactKind.OFFER_DECLINED, FactKind.ASSIGNMENT_ENDED}:
                self.refusing.add((after.ride_id, fact.driver_id))

    def happen(self, ride: Ride, event: Event) -> None:
        decision = self.decide(ride, event)
        if decision is not None:
            with contextlib.suppress(Refused):
                self.commit(ride, decision)

    @rule(rider=st.integers(0, 2), ahead_s=st.none() | st.integers(60, 900))
    @precondition(lambda self: len(self.fence.rides) < 6)
    def request(self, rider: int, ahead_s: int | None) -> None:
        self.want(rider, ahead_s)

    def want(self, rider: int, ahead_s: int | None) -> None:
        number = len(self.fence.rides)
        ride = replace(searching(), version=0, ride_id=RideId(f"gridport-{number}"), rider_id=RiderId(f"r{rider}"))
        if ahead_s is None:
            decision = begin(ride, self.now_ms)
        else:
            decision = schedule(replace(ride, pickup_at_ms=self.now_ms + ahead_s * 1000), self.now_ms, SHORT)
        with contextlib.suppress(Refused):
            self.commit(None, decision)

    @rule(data=st.data(), wanted=st.sampled_from([2, 1, 3, 0]), accepted=st.sampled_from([True, True, False]))
    @precondition(lambda self: any(ride.state is RideState.SEARCHING for ride in self.rides))
    def search(self, data: st.DataObject, wanted: int, accepted: bool) -> None:
        """Whom the rule of candidates lets through; what it knows of the drivers may be old. Somebody may accept at once."""
        ride = data.draw(st.sampled_from([ride for ride in self.rides if ride.state is RideState.SEARCHING]))
        is_old = data.draw(st.booleans())
        busy = set() if is_old else set(self.fence.driven)
        asked = set() if is_old else {offer.driver_id for other in self.rides for offer in other.live_offers()}
        known = facts(*({"busy": d in busy, "has_live_offer": d in asked} for d in DRIVERS))
        considered = consider(
            ride, 1, candidates(*DRIVERS), known, NEAREST_FIRST, searched_radius_m=1.0, complete=True, as_of_ms=self.now_ms
        )
        ids = [DRIVERS[row] for row in considered.eligible()][:wanted]
        assert not {(ride.ride_id, driver_id) for driver_id in ids} & self.refusing, "asked again"
        self.happen(ride, self.plan(ride, ids))
        live = self.fence.rides[ride.ride_id].live_offers()
        if live and accepted:
            self.happen(self.fence.rides[ride.ride_id], OfferAccepted(data.draw(st.sampled_from(live)).offer_id))

    def plan(self, ride: Ride, driver_ids: Sequence[str]) -> OffersPlanned:
        self.offer_count += len(driver_ids)
        first = self.offer_count - len(driver_ids)
        planned = tuple(PlannedOffer(OfferId(f"o{first + n}"), DriverId(d), 60, 500) for n, d in enumerate(driver_ids))
        return OffersPlanned(ride.phase + 1, planned)

    def any_event(self, data: st.DataObject) -> tuple[Ride, Event]:
        """Of a ride that drivers were asked about."""
        ride = data.draw(st.sampled_from([ride for ride in self.rides if ride.offers]))
        offer = data.draw(st.sampled_from(ride.offers))
        version = ride.version - data.draw(st.integers(0, 1))
        events: list[Event] = [
            *(kind(offer.offer_id) for kind in (OfferShown, OfferAccepted, OfferDeclined, OfferWithdrawn)),
            *(kind(offer.driver_id) for kind in BY_A_DRIVER),
            *(kind(offer.driver_id, version) for kind in LOST),
            ReassignedByOperator("test"),
            EndedByOperator("test"),
        ]
        return ride, data.draw(st.sampled_from(events))

    @rule(data=st.data())
    @precondition(lambda self: any(ride.offers for ride in self.rides))
    def answer_or_drive(self, data: st.DataObject) -> None:
        self.happen(*self.any_event(data))

    @rule(data=st.data(), steps=st.integers(1, 3))
    @precondition(lambda self: any(ride.state in ASSIGNED for ride in self.rides))
    def drive(self, data: st.DataObject, steps: int) -> None:
        """The next steps of a ride, by the driver who has it."""
        ride = data.draw(st.sampled_from([ride for ride in self.rides if ride.state in ASSIGNED]))
        for _ in range(steps):
            if ride.state in ASSIGNED and ride.assignment is not None:
                self.happen(ride, STEPS[ride.state](ride.assignment.driver_id))
                ride = self.fence.rides[ride.ride_id]

    @rule(data=st.data(), lost=st.sampled_from([NoProgress, DriverSilent]))
    @precondition(lambda self: any(ride.state in ASSIGNED for ride in self.rides))
    def lose(self, data: st.DataObject, lost: Callable[[str, int], Event]) -> None:
        """The driver who has the ride does not come, or is silent."""
        ride = data.draw(st.sampled_from([ride for ride in self.rides if ride.state in ASSIGNED]))
        assert ride.assignment is not None
        self.happen(ride, lost(ride.assignment.driver_id, ride.version))

    @rule(data=st.data())
    @precondition(lambda self: any(ride.offers for ride in self.rides))
    def prepare(self, data: st.DataObject) -> None:
        """Somebody has read and decided, and is slow to commit."""
        ride, event = self.any_event(data)
        decision = self.decide(ride, event)
        if decision is not None:
            self.prepared.append((ride, decision))

    @rule()
    @precondition(lambda self: self.prepared)
    def commit_prepared(self) -> None:
        with contextlib.suppress(Refused):
            self.commit(*self.prepared.pop(0))

    @rule(data=st.data())
    @precondition(lambda self: any(ride.offers for ride in self.rides))
    def cancel(self, data: st.DataObject) -> None:
        self.happen(data.draw(st.sampled_from([ride for ride in self.rides if ride.offers])), RiderCancelled())

    @rule(seconds=st.sampled_from([1, 5, 30, 61, 130, 700, 4_000]))
    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        for ride in self.rides:
            if ride.next_deadline_ms is not None and ride.next_deadline_ms <= self.now_ms:
                self.act(ride, nobody_is_found=False)

    def act(self, ride: Ride, *, nobody_is_found: bool) -> None:
        """What the timekeeper does at a deadline."""
        if ride.state is RideState.SEARCHING and not search_is_over(ride, self.now_ms, SHORT):
            if nobody_is_found:
                self.happen(ride, self.plan(ride, ()))
            return
        decision = self.decide(ride, DeadlinePassed())
        assert decision is not None, "a deadline that changes nothing"
        try:
            self.commit(ride, decision)
        except Refused:
            assert ride.state is RideState.SCHEDULED
            self.happen(ride, RiderFoundBusy())

    @invariant()
    def a_driver_is_on_one_ride_and_a_ride_has_one_driver(self) -> None:
        bound = {ride.assignment.driver_id: ride.ride_id for ride in self.rides if ride.state in ASSIGNED and ride.assignment}
        assert self.fence.driven == bound
        assert len(bound) == sum(ride.state in ASSIGNED for ride in self.rides)

    @invariant()
    def a_rider_has_one_active_ride(self) -> None:
        riders = [ride.rider_id for ride in self.rides if ride.state in ACTIVE]
        assert len(riders) == len(set(riders))

    @invariant()
    def offers_live_only_while_offered_and_one_for_each_driver(self) -> None:
        for ride in self.rides:
            assert (ride.state is RideState.OFFERED) == bool(ride.live_offers())
        asked = [offer.driver_id for ride in self.rides for offer in ride.live_offers()]
        assert len(asked) == len(set(asked))

    @invariant()
    def a_deadline_exactly_until_the_end(self) -> None:
        for ride in self.rides:
            assert (ride.next_deadline_ms is None) == (ride.state in FINAL)

    @invariant()
    def final_states_are_final(self) -> None:
        for ride in self.rides:
            if ride.state in FINAL:
                assert self.finals.setdefault(ride.ride_id, ride) == ride

    @invariant()
    def a_ride_costs_one_fee_at_most_and_none_that_was_ridden(self) -> None:
        for ride_id, count in self.fees.items():
            assert count == 1
            assert self.fence.rides[ride_id].state in {RideState.NO_SHOW, RideState.CANCELLED_BY_RIDER}

    @invariant()
    def a_line_for_other_workers_says_all_of_a_ride(self) -> None:
        assert [ride_of_line(ride_line(ride)) for ride in self.rides] == self.rides

    def teardown(self) -> None:
        """Nobody does anything any more: deadlines alone end every ride, and free every driver."""
        if not hasattr(self, "fence"):
            return
        waiting = [ride for ride in self.rides if ride.next_deadline_ms is not None]
        while waiting:
            ride = min(waiting, key=lambda ride: ride.next_deadline_ms or 0)
            assert ride.next_deadline_ms is not None
            self.now_ms = max(self.now_ms, ride.next_deadline_ms)
            assert self.now_ms < NOW_MS + 24 * 3_600_000, "a ride that does not end"
            self.act(ride, nobody_is_found=True)
            assert self.fence.rides[ride.ride_id] != ride, "a deadline that changes nothing"
            waiting = [ride for ride in self.rides if ride.next_deadline_ms is not None]
        assert self.fence.driven == {}


AnyHistory.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestAnyHistory = AnyHistory.TestCase
