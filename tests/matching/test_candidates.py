"""Who is asked in a phase, and why the others are not: facts in, reasons out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.candidates import Consideration, DriverFacts, NotOffered, consider, with_outcome
from matching.model import OfferState, Ride, RideState
from matching.offers import OfferParams, decide
from tests.matching.rides import GOOD, NEAREST_FIRST, NOW_MS, candidates, facts, offered, plan, searching

if TYPE_CHECKING:
    from matching.ranking import Candidates


def considered(ride: Ride, who: Candidates, known: DriverFacts) -> Consideration:
    return consider(ride, 1, who, known, NEAREST_FIRST, searched_radius_m=2_000.0, complete=True, as_of_ms=NOW_MS)


@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"known": False}, NotOffered.UNKNOWN_DRIVER),
        ({"online": False}, NotOffered.OFFLINE),
        ({"suspended": True}, NotOffered.SUSPENDED),
        ({"busy": True}, NotOffered.BUSY),
        ({"has_live_offer": True}, NotOffered.HAS_OFFER),
        ({"has_session": False}, NotOffered.NO_SESSION),
    ],
)
def test_who_cannot_be_asked_is_not_and_the_reason_is_kept(fact: dict[str, bool], reason: NotOffered) -> None:
    result = considered(searching(), candidates("bad", "good"), facts(fact, {}))
    assert result.reasons == (reason, "")
    assert result.eligible() == [1]


def test_a_driver_to_whom_no_way_leads_is_not_asked() -> None:
    result = considered(searching(), candidates("far", "near", pickup_eta_s=np.array([np.inf, 60.0])), facts({}, {}))
    assert result.reasons == (NotOffered.UNREACHABLE, "")


def test_nobody_is_asked_twice_for_one_ride() -> None:
    ride = offered("declined", "ignored")
    ride = replace(ride, offers=(replace(ride.offers[0], state=OfferState.DECLINED), ride.offers[1]))
    seen = replace(ride.offers[1], state=OfferState.EXPIRED, shown_at_ms=NOW_MS)
    ride = replace(ride, offers=(ride.offers[0], seen))
    result = considered(ride, candidates("declined", "ignored", "new"), facts({}, {}, {}))
    assert result.reasons == (NotOffered.DECLINED_BEFORE, NotOffered.OFFERED_BEFORE, "")


def missed(*driver_ids: str) -> Ride:
    """A ride whose offers to these drivers, one phase after another, expired without being shown."""
    ride = searching()
    for driver_id in driver_ids:
        ride = decide(ride, plan(ride, driver_id), NOW_MS, OfferParams()).ride
        gone = tuple(replace(offer, state=OfferState.EXPIRED) for offer in ride.offers)
        ride = replace(ride, state=RideState.SEARCHING, offers=gone)
    return ride


def test_who_was_never_shown_the_offer_has_a_second_chance_after_all_first_ones() -> None:
    result = considered(missed("deaf"), candidates("deaf", "new", "newer"), facts({}, {}, {}))
    assert result.reasons == ("", "", "")
    assert result.eligible() == [1, 2, 0]


def test_who_never_shows_an_offer_is_asked_twice_in_a_search_and_no_more() -> None:
    twice = missed("deaf", "deaf")
    assert considered(twice, candidates("deaf"), facts({})).reasons == (NotOffered.NOT_SHOWN_BEFORE,)
    again = replace(twice, search_began_at_ms=NOW_MS + 1)
    assert considered(again, candidates("deaf"), facts({})).eligible() == [0]


def test_of_several_reasons_the_one_that_lasts_longest_is_named() -> None:
    """An operator who reads it is not sent looking for a phone that is not there."""
    result = considered(searching(), candidates("x"), facts({"online": False, "has_session": False, "busy": True}))
    assert result.reasons == (NotOffered.OFFLINE,)


def test_the_eligible_come_best_first() -> None:
    who = candidates("c", "a", "b", pickup_eta_s=np.array([30.0, 90.0, 60.0]))
    assert considered(searching(), who, facts({}, {}, {})).eligible() == [0, 2, 1]


def test_those_left_over_are_outranked_or_anothers() -> None:
    result = considered(searching(), candidates("first", "theirs", "third", "off"), facts({}, {}, {}, {"online": False}))
    outcome = with_outcome(result, asked=[0], claimed_by_others=[1])
    assert outcome.reasons == ("", NotOffered.CLAIMED, NotOffered.OUTRANKED, NotOffered.OFFLINE)


def test_of_nobody_nobody_is_asked() -> None:
    result = considered(searching(), candidates(), facts())
    assert result.eligible() == []
    assert decide(searching(), plan(searching()), NOW_MS, OfferParams()).ride.live_offers() == ()


@given(st.lists(st.fixed_dictionaries({name: st.booleans() for name in GOOD}), max_size=10), st.randoms(use_true_random=False))
def test_a_drivers_reason_is_its_own_whatever_row_it_stands_in(drivers: list[dict[str, bool]], random: Any) -> None:
    ids = [f"d{n}" for n in range(len(drivers))]
    rows = list(range(len(drivers)))
    random.shuffle(rows)
    one = considered(searching(), candidates(*ids), facts(*drivers))
    other = considered(searching(), candidates(*ids).take(rows), facts(*(drivers[row] for row in rows)))
    assert dict(zip(ids, one.reasons, strict=True)) == dict(zip((ids[row] for row in rows), other.reasons, strict=True))
    assert [ids[row] for row in one.eligible()] == [ids[rows[row]] for row in other.eligible()]
