"""What matching says of its rides on the wire, and that its words and the contract's are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1 import offer_pb2, ride_pb2
from hexhail.kernel.geo import Place, cell_of
from hexhail.kernel.ids import CityId, DriverId
from hexhail.rpc.tokens import Principal, Role
from matching import wire
from matching.candidates import consider
from matching.events_wire import encode_ride_events
from matching.model import (
    DeadlinePassed,
    DriverArrived,
    DriverCancelled,
    DriverSilent,
    EndedByOperator,
    FactKind,
    FeeKind,
    NoProgress,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OfferState,
    OfferWithdrawn,
    ReassignedByOperator,
    ReleaseReason,
    RideCompleted,
    RiderCancelled,
    RiderFoundBusy,
    RideStarted,
    RideState,
)
from matching.offers import OfferParams, PhaseParams, begin, decide, schedule
from matching.ranking import PolicyFailure, RankingParams, rank
from matching.store import Change, Driver
from tests.matching.rides import NEAREST_FIRST, NOW_MS, candidates, facts, offered, plan, searching

if TYPE_CHECKING:
    from matching.candidates import Consideration
    from matching.model import Decision, Event, Ride

PARAMS = OfferParams(phases=(PhaseParams(3, 100.0, 2_000.0),))  # as long as the search: its end is the ride's
RIDER = Principal(Role.RIDER, "r1")


def names(enum: Any, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name in enum.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118 - no dict


def test_states_have_the_contracts_names() -> None:
    assert names(ride_pb2.RideState, "RIDE_STATE_") == set(RideState)
    assert names(offer_pb2.OfferState, "OFFER_STATE_") == set(OfferState)


def test_every_end_of_an_assignment_has_a_name_in_the_event_log() -> None:
    assert set(ReleaseReason) <= names(event_pb2.AssignmentEndReason, "ASSIGNMENT_END_REASON_")


def test_fees_have_the_contracts_names() -> None:
    assert set(FeeKind) == names(event_pb2.FeeKind, "FEE_KIND_")


@pytest.mark.parametrize("state", list(RideState))
def test_a_ride_in_any_state_can_be_told(state: RideState) -> None:
    assert wire.write_ride(replace(searching(), state=state)).state == ride_pb2.RideState.Value(f"RIDE_STATE_{state}")


def test_a_ride_without_a_deadline_says_zero() -> None:
    assert wire.write_ride(replace(searching(), next_deadline_ms=None)).deadline_ms == 0


def test_an_offer_says_how_long_it_can_still_be_accepted_by_our_clock() -> None:
    ride = offered("d1")
    assert wire.write_offer(ride, ride.offers[0], NOW_MS + 2_000).remaining_ms == 3_000
    assert wire.write_offer(ride, ride.offers[0], NOW_MS + 60_000).remaining_ms == 0
    closed = replace(ride.offers[0], state=OfferState.WITHDRAWN)
    assert wire.write_offer(ride, closed, NOW_MS).remaining_ms == 0


def test_an_offer_tells_where_the_ride_leads() -> None:
    ride = offered("d1")  # due north
    assert wire.write_offer(ride, ride.offers[0], NOW_MS).direction_deg == pytest.approx(0.0, abs=0.01)


def test_a_driver_of_whom_nothing_is_known_is_thought_to_accept_nine_of_ten() -> None:
    driver = Driver(CityId("gridport"), DriverId("d1"), 1, ("economy",), 4_500, True, False, NOW_MS)
    assert wire.write_driver(driver).acceptance_milli == 900


def test_demand_counts_open_requests_per_cell() -> None:
    here, there = Place(40.5, -74.0), Place(40.52, -74.02)
    answer = wire.write_demand([here, there, here], 8, NOW_MS)
    counted = dict(zip(answer.cells, answer.open_requests, strict=True))
    assert counted == {cell_of(here, 8): 2, cell_of(there, 8): 1}
    assert list(wire.write_demand([], 8, NOW_MS).cells) == []


def test_a_request_is_known_again_by_its_caller_its_name_and_its_body() -> None:
    request = pb.CancelRideRequest(request_id="x", ride_id="gridport-1")
    key = wire.read_request_key("gridport", RIDER, "x", request)
    assert wire.read_request_key("gridport", RIDER, "x", pb.CancelRideRequest.FromString(request.SerializeToString())) == key
    assert wire.read_request_key("gridport", Principal(Role.RIDER, "r2"), "x", request).actor != key.actor
    assert wire.read_request_key("gridport", Principal(Role.DRIVER, "r1"), "x", request).actor != key.actor
    other_body = pb.CancelRideRequest(request_id="x", ride_id="gridport-2")
    assert wire.read_request_key("gridport", RIDER, "x", other_body).body_digest != key.body_digest


def test_two_methods_whose_bodies_look_alike_are_two_requests() -> None:
    arrive, start = (kind(request_id="x", ride_id="gridport-1") for kind in (pb.ReportArrivalRequest, pb.StartRideRequest))
    assert arrive.SerializeToString() == start.SerializeToString()
    digests = {wire.read_request_key("gridport", RIDER, "x", message).body_digest for message in (arrive, start)}
    assert len(digests) == 2


def considered(travel_times_version: str, *, fell_back: bool) -> Consideration:
    """A search in which one driver was found."""
    return consider(
        searching(),
        1,
        candidates("d1"),
        facts({}),
        NEAREST_FIRST,
        searched_radius_m=2_000.0,
        complete=True,
        as_of_ms=NOW_MS,
        travel_times_version=travel_times_version,
        travel_times_fell_back=fell_back,
    )


def history(*events: Event, pickup_at_ms: int = 0) -> list[tuple[Ride | None, Decision]]:
    """Each change of a ride to which these things happen, its request first."""
    wanted = replace(searching(), version=0, pickup_at_ms=pickup_at_ms)
    decision = schedule(wanted, NOW_MS, PARAMS) if pickup_at_ms else begin(wanted, NOW_MS)
    changes: list[tuple[Ride | None, Decision]] = [(None, decision)]
    for event in events:
        before = decision.ride
        decision = decide(before, event, max(NOW_MS, before.next_deadline_ms or NOW_MS), PARAMS)
        changes.append((before, decision))
    return changes


ASKED = plan(searching(), "d1")
HISTORIES: list[tuple[Event, ...]] = [
    (ASKED, OfferWithdrawn("o-d1"), EndedByOperator("test")),
    (ASKED, OfferAccepted("o-d1"), ReassignedByOperator("test")),
    (ASKED, OfferShown("o-d1"), OfferAccepted("o-d1"), DriverArrived("d1"), RideStarted("d1"), RideCompleted("d1")),
    (ASKED, OfferDeclined("o-d1"), RiderCancelled()),
    (ASKED, DeadlinePassed()),
    (ASKED, OfferAccepted("o-d1"), DriverCancelled("d1", "flat tyre")),
    (ASKED, OfferAccepted("o-d1"), NoProgress("d1", 3)),
    (ASKED, OfferAccepted("o-d1"), DriverSilent("d1", 3)),
    (ASKED, OfferAccepted("o-d1"), DriverArrived("d1"), DeadlinePassed()),
    (ASKED, OfferAccepted("o-d1"), DriverArrived("d1"), RideStarted("d1"), DeadlinePassed()),
]


def test_every_event_of_a_ride_names_the_travel_times_that_it_was_decided_with() -> None:
    """The quote's until a search, then the search's own, marked where the city's router did not answer."""
    asked = replace(ASKED, travel_times_version="of-the-search")
    versions: list[list[str]] = []
    for before, decision in history(asked, OfferAccepted("o-d1"), DriverArrived("d1")):
        searched = considered("of-the-search", fell_back=True) if len(versions) == 1 else None
        change = Change(before, decision, "somebody", consideration=searched)
        envelopes = [event_pb2.Envelope.FromString(packed) for _, packed in encode_ride_events(change)]
        versions.append([envelope.traffic_version for envelope in envelopes])
        if searched is not None:
            assert envelopes[0].candidates_ranked.travel_times_fell_back
    assert versions == [["of-the-quote"], ["of-the-search"] * 2, ["of-the-search"], ["of-the-search"]]
    assert wire.write_ride(decision.ride).assignment.travel_times_version == "of-the-search"


def test_a_search_is_logged_with_the_parts_of_every_score_and_with_the_policy_that_failed() -> None:
    ranking = replace(rank(candidates("d1", "d2"), RankingParams()), failed_policy="theirs", failure=PolicyFailure.NOT_FINITE)
    searched = consider(
        searching(), 1, candidates("d1", "d2"), facts({}, {}), ranking, searched_radius_m=2_000.0, complete=True, as_of_ms=NOW_MS
    )
    before, decision = history(ASKED)[1]
    kind, packed = encode_ride_events(Change(before, decision, "system", consideration=searched))[0]
    envelope = event_pb2.Envelope.FromString(packed)
    assert (kind, envelope.ride_state) == ("CANDIDATES_RANKED", ride_pb2.RIDE_STATE_OFFERED)
    told = envelope.candidates_ranked
    assert [part.name for part in told.parts] == ["base", "distance", "rating", "acceptance", "toward_pickup"]
    assert [sum(row) for row in zip(*(part.score_milli for part in told.parts), strict=True)] == list(told.score_milli)
    assert (told.policy, told.policy_fell_back) == ("classic", True)
    assert (told.failed_policy, told.policy_failure) == ("theirs", "NOT_FINITE")


def test_whatever_happens_to_a_ride_is_told_by_the_event_log() -> None:
    """Every kind of fact comes with an envelope that names ride, version, place in the version, time and actor."""
    told: set[str] = set()
    histories = [history(*happened) for happened in HISTORIES]
    histories.append(history(RiderFoundBusy(), DeadlinePassed(), DeadlinePassed(), pickup_at_ms=NOW_MS + 7_200_000))
    for changes in histories:
        for before, decision in changes:
            for index, (kind, packed) in enumerate(encode_ride_events(Change(before, decision, "somebody"))):
                envelope = event_pb2.Envelope.FromString(packed)
                assert envelope.WhichOneof("event") == kind.lower()
                assert (envelope.aggregate_id, envelope.version) == (decision.ride.ride_id, decision.ride.version)
                assert (envelope.index, envelope.at_ms) == (index, decision.ride.updated_at_ms)
                assert (envelope.city_id, envelope.actor) == ("gridport", "somebody")
                told.add(kind)
    assert told == set(FactKind) - {FactKind.CANDIDATES_RANKED}


def envelopes(change: tuple[Ride | None, Decision]) -> list[event_pb2.Envelope]:
    return [event_pb2.Envelope.FromString(packed) for _, packed in encode_ride_events(Change(*change, "system"))]


def test_a_ride_for_later_tells_why_it_waits_and_when_its_search_begins() -> None:
    pickup_at_ms = NOW_MS + 7_200_000
    changes = history(RiderFoundBusy(), DeadlinePassed(240.0), DeadlinePassed(240.0), pickup_at_ms=pickup_at_ms)[1:]
    busy, early, begun = (envelopes(change)[0] for change in changes)
    first_look_ms = pickup_at_ms - 35 * 60_000
    assert (busy.search_postponed.reason, busy.search_postponed.until_ms) == ("RIDER_BUSY", first_look_ms + 60_000)
    assert (early.search_postponed.reason, early.search_postponed.until_ms) == ("EARLY", pickup_at_ms - 9 * 60_000)
    assert begun.search_began.expected_pickup_s == 240
    assert begun.at_ms == pickup_at_ms - 9 * 60_000


def test_a_fee_that_is_due_names_its_kind_and_both_sides() -> None:
    no_show = history(ASKED, OfferAccepted("o-d1"), DriverArrived("d1"), DeadlinePassed())[-1]
    due = envelopes(no_show)[-1].fee_due
    assert (due.kind, due.rider_id, due.driver_id) == (event_pb2.FEE_KIND_NO_SHOW, "r1", "d1")
    assert due.at_ms == no_show[1].ride.updated_at_ms


def test_a_ride_that_the_system_cancels_says_why() -> None:
    never_came = history(ASKED, OfferAccepted("o-d1"), DeadlinePassed())[-1]
    assert [e.ride_cancelled.reason for e in envelopes(never_came) if e.HasField("ride_cancelled")] == ["PICKUP_LIMIT"]


def test_a_demand_column_is_as_long_as_its_cells() -> None:
    places = [Place(40.5 + 0.001 * n, -74.0) for n in range(30)]
    answer = wire.write_demand(places, 9, NOW_MS)
    assert len(answer.cells) == len(answer.open_requests)
    assert int(np.sum(answer.open_requests)) == len(places)
