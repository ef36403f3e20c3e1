"""Apps speak the wire's language, and give plain values back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.api.location.v1 import fix_pb2
from hexhail.api.matching.v1 import offer_pb2, ride_pb2
from hexhail.client import (
    Channels,
    DriverApp,
    FixAckView,
    FixReport,
    FleetApp,
    FleetFixes,
    OfferState,
    OperatorApp,
    RiderApp,
    RideState,
    RideView,
    Role,
    SessionView,
    TrackingView,
)
from hexhail.kernel.geo import Place
from tests.client.fakes import Script, fake_city, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STOPS = (Place(40.5, -74.0), Place(40.51, -74.01))


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def channels(script: Script) -> AsyncIterator[Channels]:
    async with fake_city(script) as addresses, Channels(addresses) as channels:
        yield channels


async def test_a_rider_asks_requests_and_watches(channels: Channels, script: Script) -> None:
    app = RiderApp(channels, "gridport", "r1", token(Role.RIDER, "r1"))
    (quote,) = await app.quotes(STOPS, ["economy"])
    assert (quote.product, quote.fare_minor, quote.currency_code, quote.multiplier_milli) == ("economy", 1234, "USD", 1500)
    ride = await app.request_ride(quote, STOPS)
    assert (ride.state, ride.stops, ride.assignment) == (RideState.SEARCHING, STOPS, None)
    request = next(request for method, _, request in script.asked if method == "RequestRide")
    assert (request.quote_token, request.city_id, request.product) == (b"signed", "gridport", "economy")
    views = [view async for view in app.watch_ride(ride.ride_id)]
    first, named, tracking = views
    assert isinstance(first, RideView)
    assert first.state.is_searching
    assert isinstance(named, RideView)
    assert named.assignment is not None
    assert (named.assignment.driver_id, named.assignment.pickup_eta_s) == ("fleet.d1", 77)
    assert tracking == TrackingView("fleet.d1", Place(40.5, -74.0), None, 60, 0)


async def test_a_driver_streams_fixes_and_closes_its_side(channels: Channels, script: Script) -> None:
    app = DriverApp(channels, "gridport", "fleet.d1", token(Role.DRIVER, "fleet.d1"))

    async def fixes() -> AsyncIterator[FixReport]:
        for sequence in (1, 2):
            yield FixReport(sequence, 1000 * sequence, Place(40.5, -74.0), None, 3.0)

    answers = [answer async for answer in app.stream_fixes(fixes())]
    assert answers == [SessionView(7, 4000, 0), FixAckView(1, 1, {}, 0), FixAckView(2, 1, {}, 0)]
    sent = [request.fix for method, _, request in script.asked if request.WhichOneof("message") == "fix"]
    assert not sent[0].HasField("heading_deg")
    assert sent[0].speed_mps == 3.0


async def test_a_fleet_streams_columns(channels: Channels, script: Script) -> None:
    app = FleetApp(channels, "gridport", "fleet", token(Role.FLEET, "fleet"))

    async def batches() -> AsyncIterator[FleetFixes]:
        yield FleetFixes(
            new_driver_ids=("fleet.d1", "fleet.d2"),
            driver_index=np.array([0, 1]),
            sequence=np.array([1, 1]),
            device_time_ms=np.array([5, 6]),
            lat=np.array([40.5, 40.50000004]),
            lng=np.array([-74.0, -73.9999999]),
            heading_deg=np.array([np.nan, 359.99]),
            speed_mps=np.array([0.0, 12.3456]),
        )

    answers = [answer async for answer in app.stream_fleet_fixes(batches())]
    assert answers == [SessionView(8, 4000, 0), FixAckView(1, 1, {"NOT_NEWER": 1}, 0)]
    columns = script.asked[-1][2].columns
    assert list(columns.new_driver_ids) == ["fleet.d1", "fleet.d2"]
    assert list(columns.lat_e7) == [405_000_000, 405_000_000]
    assert list(columns.lng_e7) == [-740_000_000, -739_999_999]
    assert list(columns.heading_cdeg) == [65_535, 35_999]
    assert list(columns.speed_mmps) == [0, 12_346]


async def test_anyone_reads_surge(channels: Channels) -> None:
    surge = await OperatorApp(channels, "gridport", "desk", token(Role.OPERATOR, "desk")).surge("gridport")
    assert (surge.cells.tolist(), surge.multiplier_milli.tolist(), surge.version) == ([1, 2], [1200, 2500], 3)


def test_states_and_drop_reasons_are_those_of_the_wire() -> None:
    assert {f"RIDE_STATE_{state}" for state in RideState} | {"RIDE_STATE_UNSPECIFIED"} == set(ride_pb2.RideState.keys())
    assert {f"OFFER_STATE_{s}" for s in OfferState} | {"OFFER_STATE_UNSPECIFIED"} == set(offer_pb2.OfferState.keys())
    assert all(name.startswith("FIX_DROP_REASON_") for name in fix_pb2.FixDropReason.keys())  # noqa: SIM118 - no mapping


def test_the_unsearched_states_are_bound_or_final() -> None:
    bound = {RideState.ACCEPTED, RideState.ARRIVED, RideState.IN_PROGRESS}
    for state in RideState:
        assert (state in bound) + state.is_final + state.is_searching == 1
