"""What becomes of a ride: the case table on the pure function, the transition table, and what holds whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hexhail.kernel.errors import DomainError, Reason
from matching.model import (
    ACTIVE,
    ASSIGNED,
    FINAL,
    TRANSITIONS,
    DeadlinePassed,
    DriverArrived,
    DriverCancelled,
    EndedByOperator,
    Event,
    Fact,
    FactKind,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OfferState,
    OfferWithdrawn,
    ReassignedByOperator,
    RideCompleted,
    RiderCancelled,
    RideStarted,
    RideState,
)
from matching.offers import OfferParams, PhaseParams, decide, search_is_over
from tests.matching.rides import NOW_MS, offered, plan, searching

if TYPE_CHECKING:
    from collections.abc import Callable

    from matching.model import Ride

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


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, these things hold of a ride."""

    @initialize()
    def request(self) -> None:
        self.ride = searching()
        self.now_ms = NOW_MS
        self.offer_count = 0
        self.bound: set[str] = set()
        self.finals: list[RideState] = []

    def happen(self, event: Event) -> None:
        before = self.ride
        try:
            decision = decide(before, event, self.now_ms, PARAMS)
        except DomainError:
            return
        after = decision.ride
        if after is before:
            assert not decision.facts
            return
        assert after.version == before.version + 1
        assert after.state in TRANSITIONS[before.state][event.kind]
        self._follow(decision.facts)
        self.ride = after

    def _follow(self, facts: tuple[Fact, ...]) -> None:
        for fact in facts:
            if fact.kind is FactKind.ASSIGNMENT_BEGAN:
                assert not self.bound
                self.bound.add(fact.driver_id)
            elif fact.kind is FactKind.ASSIGNMENT_ENDED:
                self.bound.remove(fact.driver_id)

    @rule(drivers=st.integers(0, 4))
    @precondition(lambda self: self.ride.state is RideState.SEARCHING)
    def search(self, drivers: int) -> None:
        ids = [f"d{self.offer_count + n}" for n in range(drivers)]
        self.offer_count += drivers
        self.happen(plan(self.ride, *ids))

    @rule(data=st.data(), event=st.sampled_from([OfferShown, OfferAccepted, OfferDeclined]))
    @precondition(lambda self: self.ride.offers)
    def answer(self, data: st.DataObject, event: Callable[[str], Event]) -> None:
        self.happen(event(data.draw(st.sampled_from(self.ride.offers)).offer_id))

    @rule(data=st.data(), event=st.sampled_from([DriverArrived, RideStarted, RideCompleted, DriverCancelled]))
    @precondition(lambda self: self.ride.offers)
    def drive(self, data: st.DataObject, event: Callable[[str], Event]) -> None:
        self.happen(event(data.draw(st.sampled_from(self.ride.offers)).driver_id))

    @rule()
    def cancel(self) -> None:
        self.happen(RiderCancelled())

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        self.happen(DeadlinePassed())

    @invariant()
    def one_driver_while_assigned(self) -> None:
        assert (self.ride.state in ASSIGNED) == bool(self.bound)
        if self.bound:
            assert self.ride.assignment is not None
            assert self.bound == {self.ride.assignment.driver_id}

    @invariant()
    def offers_live_only_while_offered(self) -> None:
        assert (self.ride.state is RideState.OFFERED) == bool(self.ride.live_offers())

    @invariant()
    def a_deadline_exactly_while_active(self) -> None:
        assert (self.ride.next_deadline_ms is not None) == (self.ride.state in ACTIVE)

    @invariant()
    def final_states_are_final(self) -> None:
        if self.ride.state in FINAL:
            self.finals.append(self.ride.state)
        assert len(set(self.finals)) <= 1


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
