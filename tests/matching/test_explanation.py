"""What becomes of a ride's events when somebody asks why: searches, offers and their courses, and who was nobody's candidate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.kernel.ids import CityId, DriverId
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.explanation import Absent, Bound, DriverChange, DriverHistory, absences, explain
from matching.explanation_wire import read_driver_history, read_log, write_explanation
from matching.model import (
    DeadlinePassed,
    DriverCancelled,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OfferState,
    RiderCancelled,
    RideState,
)
from matching.store import Change, Driver
from tests.matching.rides import NOW_MS, plan, searching
from tests.matching.test_wire import HISTORIES, considered, history

if TYPE_CHECKING:
    from matching.explanation import Explanation, LogEvent
    from matching.model import Event, Ride


def logged(*events: Event) -> tuple[Ride, list[LogEvent]]:
    """A ride to which these things happened, and what the log says of it; every plan of offers comes with its search."""
    told: list[bytes] = []
    for before, decision in history(*events):
        searched = before is not None and len(decision.ride.offers) > len(before.offers)
        consideration = considered("of-the-search", fell_back=False) if searched else None
        change = Change(before, decision, "somebody", consideration=consideration)
        told += [envelope for _, envelope in encode_ride_events(change)]
    return decision.ride, read_log(told)


def courses(explanation: Explanation) -> dict[str, OfferState]:
    return {offer.driver_id: offer.state for offer in explanation.offers}


ASKED = plan(searching(), "d1", "d2", "d3")


@pytest.mark.parametrize("happened", HISTORIES, ids=lambda events: "-".join(type(e).__name__ for e in events))
def test_the_log_alone_tells_how_a_ride_and_its_offers_ended(happened: tuple[Event, ...]) -> None:
    ride, log = logged(*happened)
    explanation = explain(replace(ride, offers=()), log)
    assert explanation.complete
    assert explanation.events[-1].ride_state == ride.state
    accepted = {event.offer_id for event in happened if isinstance(event, OfferAccepted)}  # and maybe given back, or taken away
    assert courses(explanation) == {o.driver_id: OfferState.ACCEPTED if o.offer_id in accepted else o.state for o in ride.offers}


def test_offers_are_shown_declined_accepted_and_withdrawn_when_the_log_says() -> None:
    ride, log = logged(ASKED, OfferShown("o-d2"), OfferDeclined("o-d1"), OfferAccepted("o-d2"))
    explanation = explain(ride, log)
    assert courses(explanation) == {"d1": OfferState.DECLINED, "d2": OfferState.ACCEPTED, "d3": OfferState.WITHDRAWN}
    by_driver = {offer.driver_id: offer for offer in explanation.offers}
    assert by_driver["d2"].shown_at_ms
    assert not by_driver["d3"].shown_at_ms
    assert all(offer.closed_at_ms and offer.search == 1 for offer in explanation.offers)


def test_events_may_come_in_any_order_and_those_after_the_ride_that_was_read_do_not_count() -> None:
    ride, log = logged(ASKED, OfferDeclined("o-d1"), RiderCancelled())
    assert explain(ride, list(reversed(log))) == explain(ride, log)
    earlier = replace(ride, version=ride.version - 1, state=RideState.OFFERED)
    assert {event.kind for event in explain(earlier, log).events} == {
        "RIDE_REQUESTED",
        "CANDIDATES_RANKED",
        "OFFERS_MADE",
        "OFFER_DECLINED",
    }


def test_what_the_log_has_lost_is_said_and_told_from_the_rows() -> None:
    ride, log = logged(ASKED, OfferDeclined("o-d1"), DeadlinePassed())
    explanation = explain(ride, [event for event in log if event.version > 2])
    assert not explanation.complete
    assert courses(explanation) == {"d1": OfferState.DECLINED, "d2": OfferState.EXPIRED, "d3": OfferState.EXPIRED}
    assert all(offer.search == 0 for offer in explanation.offers)
    assert explain(ride, []).searches == ()


def test_each_search_has_its_number_and_its_candidates_best_first() -> None:
    ride, log = logged(plan(searching(), "d1"), OfferAccepted("o-d1"), DriverCancelled("d1"), plan(searching(), "d2"))
    explanation = explain(ride, log)
    assert [(search.number, search.phase) for search in explanation.searches] == [(1, 1), (2, 1)]
    assert {offer.driver_id: offer.search for offer in explanation.offers} == {"d1": 1, "d2": 2}
    search = log[1].search
    assert search is not None
    (one,) = search.candidates
    others = (replace(one, driver_id="b", score_milli=5), replace(one, driver_id="a", score_milli=5), replace(one, score_milli=9))
    (sorted_,) = explain(ride, [replace(log[1], search=replace(search, candidates=others))]).searches
    assert [each.driver_id for each in sorted_.candidates] == ["d1", "a", "b"]


def test_an_explanation_travels_whole() -> None:
    ride, log = logged(ASKED, OfferShown("o-d2"), OfferDeclined("o-d1"), OfferAccepted("o-d2"))
    told = pb.ExplainRideResponse.FromString(write_explanation(explain(ride, log), [], NOW_MS).SerializeToString())
    assert [event.kind for event in told.events] == [event.kind for event in log]
    assert {offer.driver_id for offer in told.offer_courses} == {offer.driver_id for offer in told.offers} == {"d1", "d2", "d3"}
    assert told.searches[0].travel_times_version == "of-the-search"
    assert (told.quote_travel_times_version, told.complete, told.as_of_ms) == ("of-the-quote", True, NOW_MS)
    details = {event.kind: {each.name: each.value for each in event.details} for event in told.events}
    assert details["RIDE_REQUESTED"]["fare_minor"] == "1150"
    assert details["OFFERS_MADE"]["driver_ids"] == "d1, d2, d3"
    assert details["ASSIGNMENT_BEGAN"] == {"driver_id": "d2", "offer_id": "o-d2", "pickup_eta_s": "60"}


def test_an_end_says_its_reason_by_its_name() -> None:
    _, log = logged(ASKED, OfferAccepted("o-d1"), DriverCancelled("d1", "flat tyre"))
    assert dict(log[-1].details) == {"driver_id": "d1", "reason": "CANCELLED_BY_DRIVER", "note": "flat tyre"}


def test_an_offer_that_the_log_leaves_open_is_closed_as_its_row_is() -> None:
    ride, log = logged(ASKED)
    closed = replace(ride, offers=tuple(replace(offer, state=OfferState.WITHDRAWN) for offer in ride.offers))
    assert set(courses(explain(closed, log)).values()) == {OfferState.WITHDRAWN}
    assert all(not offer.closed_at_ms for offer in explain(closed, log).offers)


AT_MS = NOW_MS
NOW_GOOD = DriverChange(NOW_MS + 1_000, online=True, suspended=False, capabilities=("economy",))


@pytest.mark.parametrize(
    ("changes", "bound", "reason"),
    [
        ((), (), Absent.NOT_FOUND),
        ((DriverChange(AT_MS - 9, online=True), DriverChange(AT_MS, online=False)), (), Absent.OFFLINE),
        ((DriverChange(AT_MS - 9, online=False), DriverChange(AT_MS, online=True)), (), Absent.NOT_FOUND),
        ((DriverChange(AT_MS - 9, online=True), DriverChange(AT_MS + 1, online=False)), (), Absent.NOT_FOUND),
        ((DriverChange(AT_MS - 9, suspended=True), DriverChange(AT_MS - 8, online=False)), (), Absent.SUSPENDED),
        ((DriverChange(AT_MS - 9, capabilities=("xl",)),), (), Absent.WRONG_CLASS),
        ((DriverChange(AT_MS - 9, capabilities=("xl", "economy")),), (), Absent.NOT_FOUND),
        ((), (Bound("r9", AT_MS - 5, None),), Absent.BUSY),
        ((), (Bound("r9", AT_MS - 5, AT_MS + 1),), Absent.BUSY),
        ((), (Bound("r9", AT_MS - 5, AT_MS),), Absent.NOT_FOUND),
        ((), (Bound("r9", AT_MS + 1, None),), Absent.NOT_FOUND),
    ],
)
def test_whoever_was_no_candidate_is_told_by_what_was_so_then(
    changes: tuple[DriverChange, ...], bound: tuple[Bound, ...], reason: Absent
) -> None:
    ride, log = logged(plan(searching(), "d1"))
    (absence,) = absences(explain(ride, log), DriverHistory("d7", NOW_GOOD, changes, bound), ["economy"])
    assert (absence.search, absence.reason) == (1, reason)
    assert absence.ride_id == ("r9" if reason is Absent.BUSY else "")


def test_what_never_changed_is_as_it_is_now_and_what_changed_since_is_not_known() -> None:
    offline = replace(NOW_GOOD, online=False)
    assert DriverHistory("d7", offline).at(AT_MS).online is False
    assert DriverHistory("d7", offline, (DriverChange(AT_MS + 1, online=False),)).at(AT_MS).online is None


def test_whom_a_later_search_found_farther_away_was_out_of_the_earlier_ones_radius() -> None:
    ride, log = logged(plan(searching(), "d1"), OfferAccepted("o-d1"), DriverCancelled("d1"), plan(searching(), "d2"))
    searched = [replace(event.search, searched_radius_m=100.0) if event.search else None for event in log]
    far = [replace(search, candidates=()) if search and not any(searched[:n]) else search for n, search in enumerate(searched)]
    explanation = explain(ride, [replace(event, search=search) for event, search in zip(log, far, strict=True)])
    assert explanation.searches[1].candidates[0].distance_m == 500.0
    reasons = [each.reason for each in absences(explanation, DriverHistory("d1", NOW_GOOD), ["economy"])]
    assert reasons == [Absent.OUT_OF_RADIUS, ""]


def test_a_candidate_is_told_by_its_own_reason() -> None:
    ride, log = logged(plan(searching(), "d1"))
    (absence,) = absences(explain(ride, log), DriverHistory("d1", NOW_GOOD, (), (Bound("r9", AT_MS - 5, None),)), ["economy"])
    assert absence.reason == ""


def test_a_drivers_past_is_read_from_its_events() -> None:
    driver = Driver(
        city_id=CityId("gridport"),
        driver_id=DriverId("d1"),
        version=7,
        capabilities=("xl",),
        rating_milli=4_500,
        online=True,
        suspended=False,
        updated_at_ms=NOW_MS,
    )
    kinds = ("DRIVER_UPSERTED", "DRIVER_WENT_ONLINE", "DRIVER_WENT_OFFLINE", "DRIVER_SUSPENDED")
    envelopes = [encode_driver_event(driver, kind, NOW_MS + n, "operator/o1", "") for n, kind in enumerate(kinds)]
    past = read_driver_history(driver, envelopes, [])
    assert past.changes == (
        DriverChange(NOW_MS, capabilities=("xl",)),
        DriverChange(NOW_MS + 1, online=True),
        DriverChange(NOW_MS + 2, online=False),
        DriverChange(NOW_MS + 3, suspended=False),
    )
    assert past.present == DriverChange(NOW_MS, online=True, suspended=False, capabilities=("xl",))
