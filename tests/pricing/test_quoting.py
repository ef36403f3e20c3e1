"""Quotes are given to riders, and taken back only as they were given."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.kernel.errors import Reason
from hexhail.kernel.geo import Place, cell_of
from hexhail.rpc.tokens import Role
from pricing.__main__ import running
from routing.sources import Answered, RouterSource
from tests.pricing.world import (
    DROPOFF,
    NOON_MS,
    PICKUP,
    QUOTE_KEY,
    RIDER,
    SERVICE,
    TESTPORT,
    TestRouter,
    city,
    lat_lngs,
    metadata,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from routing.model import Router
    from routing.sources import Loops
    from tests.pricing.world import Pricing, World

T = TypeVar("T")

CELL = cell_of(PICKUP, 8)


@pytest.fixture
async def pricing(world: World) -> AsyncIterator[Pricing]:
    world.peers.supply, world.peers.open_requests = {CELL: 3}, {CELL: 4}
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        yield pricing


def verification(token: bytes, **changed: Any) -> pb.VerifyQuoteRequest:
    asked: dict[str, Any] = {
        "city_id": TESTPORT,
        "quote_token": token,
        "rider_id": "rider-1",
        "product": "economy",
        "stops": lat_lngs(PICKUP, DROPOFF),
    }
    return pb.VerifyQuoteRequest(**(asked | changed))


async def test_a_quote_for_every_product_unless_some_are_named(pricing: Pricing) -> None:
    assert [quote.product for quote in (await pricing.quotes()).quotes] == ["economy", "xl"]
    assert [quote.product for quote in (await pricing.quotes(products=["xl"])).quotes] == ["xl"]


async def test_a_quote_says_what_it_is_made_of(pricing: Pricing) -> None:
    reply = await pricing.quotes(products=["economy"])
    [quote] = reply.quotes
    basis = quote.receipt.surge
    assert (quote.rider_id, quote.city_id, quote.product) == ("rider-1", TESTPORT, "economy")
    assert quote.quote_id.startswith("testport-")
    assert [(stop.lat, stop.lng) for stop in quote.stops] == [(PICKUP.lat, PICKUP.lng), (DROPOFF.lat, DROPOFF.lng)]
    assert (quote.distance_m, quote.duration_s, quote.receipt.travel_times_version) == (2000, 300, "test-1")
    assert (basis.cell, basis.supply, basis.demand_milli, basis.stale) == (CELL, 3, 4000, False)
    assert quote.receipt.multiplier_milli == 1500
    assert quote.fare.amount_minor == 1200 == sum(line.amount_minor for line in quote.receipt.lines)
    assert (quote.issued_at_ms, quote.expires_at_ms) == (NOON_MS, NOON_MS + 120_000)
    assert reply.as_of_ms == basis.as_of_ms == NOON_MS


class Changing(RouterSource):
    """Another router for every question, each twice as far as the one before; the second does not answer itself."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = False
        self.watched = asyncio.Event()

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        self.asked += 1
        far = 2.0**self.asked
        router = TestRouter(distance_m=1_000 * far, time_s=100 * far, version=f"times-{self.asked}")
        return Answered(question(router), router.version, fell_back=self.asked == 2)

    def loops(self) -> Loops:
        async def watch() -> None:
            self.watched.set()
            await asyncio.Event().wait()

        return {"travel times": watch}

    async def aclose(self) -> None:
        self.closed = True


async def test_distance_and_time_of_a_quote_are_of_one_version_whatever_changes(world: World) -> None:
    world.source = source = Changing()
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        for version, fell_back in (("times-1", False), ("times-2", True), ("times-3", False)):
            [quote] = (await pricing.quotes(products=["economy"])).quotes
            far = 2**source.asked
            assert (quote.distance_m, quote.duration_s) == (1_000 * far, 100 * far)
            assert (quote.receipt.travel_times_version, quote.receipt.travel_times_fell_back) == (version, fell_back)


async def test_what_travel_times_need_runs_beside_the_service_and_ends_with_it(world: World) -> None:
    world.source = source = Changing()
    async with world.pricing():
        await source.watched.wait()
        assert not source.closed
    assert source.closed


async def test_every_leg_counts(pricing: Pricing) -> None:
    [quote] = (await pricing.quotes(PICKUP, DROPOFF, PICKUP, products=["economy"])).quotes
    assert (quote.distance_m, quote.duration_s) == (4000, 600)


async def test_a_verified_quote_comes_back_whole_without_its_token(pricing: Pricing) -> None:
    [quote] = (await pricing.quotes(products=["economy"])).quotes
    reply = await pricing.stub.VerifyQuote(verification(quote.quote_token), metadata=SERVICE)
    quote.quote_token = b""
    assert reply.quote == quote


async def test_stops_come_back_to_the_same_ones_whatever_their_digits(pricing: Pricing) -> None:
    stops = [Place(40.500_000_049_9, -74.000_000_049_9), Place(1.0 / 3 + 40.17, -73.99)]
    [quote] = (await pricing.quotes(*stops, products=["economy"])).quotes
    for again in (lat_lngs(*stops), list(quote.stops)):
        await pricing.stub.VerifyQuote(verification(quote.quote_token, stops=again), metadata=SERVICE)


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"rider_id": "rider-2"}, Reason.NOT_YOURS, None),
        ({"product": "xl"}, Reason.QUOTE_ALTERED, "product"),
        ({"stops": lat_lngs(DROPOFF, PICKUP)}, Reason.QUOTE_ALTERED, "stops"),
        ({"stops": lat_lngs(PICKUP, Place(40.510_000_1, -73.990))}, Reason.QUOTE_ALTERED, "stops"),
        ({"stops": lat_lngs(PICKUP)}, Reason.INVALID_FIELD, "stops"),
        ({"stops": lat_lngs(PICKUP, Place(math.nan, 0.0))}, Reason.INVALID_FIELD, "stops[1]"),
        ({"quote_token": b""}, Reason.INVALID_FIELD, "quote_token"),
        ({"quote_token": b"x" * 8193}, Reason.INVALID_FIELD, "quote_token"),
        ({"quote_token": b"x" * 8192}, Reason.QUOTE_ALTERED, "quote_token"),
        ({"rider_id": ""}, Reason.INVALID_FIELD, "rider_id"),
        ({"rider_id": "r" * 65}, Reason.INVALID_FIELD, "rider_id"),
        ({"product": ""}, Reason.INVALID_FIELD, "product"),
        ({"city_id": ""}, Reason.INVALID_FIELD, "city_id"),
        ({"city_id": "atlantis"}, Reason.UNKNOWN_CITY, "city_id"),
    ],
)
async def test_a_quote_for_somebody_or_something_else_is_refused(
    pricing: Pricing, changed: dict[str, Any], reason: Reason, field: str | None
) -> None:
    [quote] = (await pricing.quotes(products=["economy"])).quotes
    error = await refused(pricing.stub.VerifyQuote(verification(quote.quote_token, **changed), metadata=SERVICE))
    assert error.reason is reason
    assert [violation.field for violation in error.violations] == ([field] if field else [])


async def test_a_quote_of_another_city_is_refused(world: World) -> None:
    async with world.pricing(city(), city("otherport")) as pricing:
        await pricing.running.repricer.recompute()
        [quote] = (await pricing.quotes(products=["economy"], city_id="otherport")).quotes
        error = await refused(pricing.stub.VerifyQuote(verification(quote.quote_token), metadata=SERVICE))
    assert (error.reason, error.metadata["field"]) == (Reason.QUOTE_ALTERED, "city_id")


async def test_a_token_with_a_flipped_bit_is_refused(pricing: Pricing) -> None:
    [quote] = (await pricing.quotes(products=["economy"])).quotes
    for byte in (0, 1, 32, 33, len(quote.quote_token) - 1):
        token = bytearray(quote.quote_token)
        token[byte] ^= 1
        error = await refused(pricing.stub.VerifyQuote(verification(bytes(token)), metadata=SERVICE))
        assert error.reason is Reason.QUOTE_ALTERED


async def test_a_quote_expires(world: World, pricing: Pricing) -> None:
    [quote] = (await pricing.quotes(products=["economy"])).quotes
    world.clock.advance(119_999)
    await pricing.stub.VerifyQuote(verification(quote.quote_token), metadata=SERVICE)
    world.clock.advance(1)
    error = await refused(pricing.stub.VerifyQuote(verification(quote.quote_token), metadata=SERVICE))
    assert (error.reason, error.metadata["expires_at_ms"]) == (Reason.QUOTE_EXPIRED, str(NOON_MS + 120_000))


async def test_a_quote_outlives_the_process_that_gave_it(world: World, pricing: Pricing) -> None:
    [quote] = (await pricing.quotes(products=["economy"])).quotes
    async with world.pricing() as another:
        await another.stub.VerifyQuote(verification(quote.quote_token), metadata=SERVICE)


NAN = geo_pb2.LatLng(lat=math.nan, lng=-74.0)
INF = geo_pb2.LatLng(lat=40.5, lng=math.inf)
SOUTH_OF_SOUTH = geo_pb2.LatLng(lat=-91.0, lng=-74.0)
ELSEWHERE = geo_pb2.LatLng(lat=41.0, lng=-74.0)
GOOD = lat_lngs(PICKUP, DROPOFF)


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"city_id": ""}, Reason.INVALID_FIELD, "city_id"),
        ({"city_id": "No City"}, Reason.INVALID_FIELD, "city_id"),
        ({"city_id": "atlantis"}, Reason.UNKNOWN_CITY, "city_id"),
        ({"stops": []}, Reason.INVALID_FIELD, "stops"),
        ({"stops": GOOD[:1]}, Reason.INVALID_FIELD, "stops"),
        ({"stops": GOOD * 6}, Reason.INVALID_FIELD, "stops"),
        ({"stops": [NAN, GOOD[1]]}, Reason.INVALID_FIELD, "stops[0]"),
        ({"stops": [GOOD[0], INF]}, Reason.INVALID_FIELD, "stops[1]"),
        ({"stops": [SOUTH_OF_SOUTH, GOOD[1]]}, Reason.INVALID_FIELD, "stops[0]"),
        ({"stops": [*GOOD, ELSEWHERE]}, Reason.OUTSIDE_SERVICE_AREA, "stops[2]"),
        ({"stops": [geo_pb2.LatLng(), GOOD[1]]}, Reason.OUTSIDE_SERVICE_AREA, "stops[0]"),
        ({"products": [""]}, Reason.INVALID_FIELD, "products[0]"),
        ({"products": ["economy", "economy"]}, Reason.INVALID_FIELD, "products[1]"),
        ({"products": ["x" * 65]}, Reason.INVALID_FIELD, "products[0]"),
        ({"products": ["helicopter"]}, Reason.UNKNOWN_PRODUCT, None),
    ],
)
async def test_bad_input_is_refused_by_field_and_leaves_no_demand(
    pricing: Pricing, valkey: Redis, changed: dict[str, Any], reason: Reason, field: str | None
) -> None:
    request = pb.GetQuotesRequest(**({"city_id": TESTPORT, "stops": GOOD} | changed))
    error = await refused(pricing.stub.GetQuotes(request, metadata=RIDER))
    assert error.reason is reason
    assert [violation.field for violation in error.violations] == ([field] if field else [])
    assert not await valkey.exists("{testport}:pricing:quotes")


async def test_a_stop_that_cannot_be_reached_is_named(world: World, pricing: Pricing) -> None:
    world.router.unreachable = {1}
    error = await refused(pricing.quotes(PICKUP, DROPOFF, PICKUP))
    assert (error.reason, error.metadata["field"]) == (Reason.NO_ROUTE, "stops[2]")


@pytest.mark.parametrize(
    ("method", "role", "reason"),
    [
        ("GetQuotes", Role.DRIVER, Reason.ROLE_NOT_ALLOWED),
        ("GetQuotes", Role.SERVICE, Reason.ROLE_NOT_ALLOWED),
        ("GetQuotes", None, Reason.TOKEN_MISSING),
        ("VerifyQuote", Role.RIDER, Reason.ROLE_NOT_ALLOWED),
        ("VerifyQuote", Role.OPERATOR, Reason.ROLE_NOT_ALLOWED),
        ("GetSurge", None, Reason.TOKEN_MISSING),
        ("SetSurgeOverride", Role.RIDER, Reason.ROLE_NOT_ALLOWED),
        ("SetSurgeOverride", Role.OPERATOR, Reason.NOT_IMPLEMENTED),
        ("ListSurgeOverrides", Role.OPERATOR, Reason.NOT_IMPLEMENTED),
        ("SetSurgeEnabled", Role.OPERATOR, Reason.NOT_IMPLEMENTED),
        ("PublishSignal", Role.SERVICE, Reason.NOT_IMPLEMENTED),
        ("ExplainSurge", Role.OPERATOR, Reason.NOT_IMPLEMENTED),
        ("GetQuote", Role.RIDER, Reason.NOT_IMPLEMENTED),
    ],
)
async def test_who_may_call_what(pricing: Pricing, method: str, role: Role | None, reason: Reason) -> None:
    call = getattr(pricing.stub, method)
    request = getattr(pb, f"{method}Request")()
    error = await refused(call(request, metadata=metadata(role, "somebody") if role else ()))
    assert error.reason is reason


async def test_asking_again_counts_once_and_for_the_window_only(world: World, pricing: Pricing) -> None:
    async def demand() -> int:
        await pricing.running.repricer.recompute()
        return int((await pricing.surge(CELL)).surge.demand_milli[0])

    world.peers.open_requests = {}
    assert await demand() == 0
    for rider in ("rider-1", "rider-1", "rider-2"):
        await pricing.quotes(rider=rider)
    assert await demand() == 500
    world.clock.advance(60_000)
    await pricing.quotes(rider="rider-1")
    world.clock.advance(59_999)
    assert await demand() == 500
    world.clock.advance(1)
    assert await demand() == 250
    world.clock.advance(60_000)
    assert await demand() == 0


async def test_a_quote_key_of_another_length_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        async with running(
            None,  # type: ignore[arg-type]
            clock=world.clock,
            token_key=b"",
            quote_key=QUOTE_KEY[:31],
            listen="",
            redis_url="",
            location_address="",
            matching_address="",
            sources={},
        ):
            pass
