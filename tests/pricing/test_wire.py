"""Whatever arrives is taken or refused with a reason; nothing that passes the checks can do harm further in."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.cities import Cities
from hexhail.kernel.errors import DomainError
from hexhail.kernel.limits import MAX_STOPS, MIN_STOPS
from pricing.wire import quotes_asked, surge_asked, verification_asked
from tests.pricing.world import TESTPORT, city

CITIES = Cities([city()])

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
CITY_IDS = st.one_of(st.just(TESTPORT), TEXT)
DEGREES = st.one_of(st.floats(), st.floats(40.4, 40.6), st.floats(-74.1, -73.9))
STOPS = st.lists(st.builds(geo_pb2.LatLng, lat=DEGREES, lng=DEGREES), max_size=12)
PRODUCTS = st.lists(st.one_of(st.sampled_from(["economy", "xl"]), TEXT), max_size=4)
CELLS = st.lists(st.integers(0, 2**64 - 1), max_size=4)


@given(st.builds(pb.GetQuotesRequest, city_id=CITY_IDS, stops=STOPS, products=PRODUCTS))
def test_any_request_for_quotes_is_taken_or_refused(request: pb.GetQuotesRequest) -> None:
    with contextlib.suppress(DomainError):
        asked = quotes_asked(CITIES, request)
        assert MIN_STOPS <= len(asked.stops) <= MAX_STOPS
        assert set(asked.products) <= {"economy", "xl"}
        assert len(set(asked.products)) == len(asked.products) > 0
        assert all(404_700_000 <= stop.lat_e7 <= 405_300_000 for stop in asked.stops)


@given(
    st.builds(
        pb.VerifyQuoteRequest,
        city_id=CITY_IDS,
        quote_token=st.binary(max_size=40),
        rider_id=TEXT,
        product=TEXT,
        stops=STOPS,
    )
)
def test_any_request_for_verification_is_taken_or_refused(request: pb.VerifyQuoteRequest) -> None:
    with contextlib.suppress(DomainError):
        asked = verification_asked(CITIES, request)
        assert asked.token
        assert all(abs(stop.lat_e7) <= 900_000_000 and abs(stop.lng_e7) <= 1_800_000_000 for stop in asked.stops)


@given(st.builds(pb.GetSurgeRequest, city_id=CITY_IDS, cells=CELLS))
def test_any_request_for_surge_is_taken_or_refused(request: pb.GetSurgeRequest) -> None:
    with contextlib.suppress(DomainError):
        assert surge_asked(CITIES, request).city.city_id == TESTPORT
