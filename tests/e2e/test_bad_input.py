"""What a bad request is told: its code, its reason and its field; and nothing is written. Through gRPC, with raw stubs."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceServicer
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1 import ride_pb2
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceServicer
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceServicer
from hexhail.client import OfferState, RideState
from hexhail.kernel.ids import mint
from hexhail.kernel.randomness import generator
from hexhail.rpc.tokens import Role, mint_token
from location.servicer import LocationServicer
from matching.servicer import MatchingServicer
from pricing.servicer import PricingServicer
from tests.e2e.people import DROPOFF, MIDDLE, NEAR, Passenger, phones, until
from tests.e2e.raw import METHODS, SERVICES, Raw, Refusal, bearer, raw_channels, request_type, rows
from tests.e2e.world import START_MS, TOKEN_KEY, gridport, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

    from hexhail.embedded import Stores
    from tests.e2e.raw import Caller, Wire
    from tests.e2e.world import World

CITY = "gridport"
RIDER, DRIVER, OPERATOR, SERVICE = (Role.RIDER, "r1"), (Role.DRIVER, "d1"), (Role.OPERATOR, "o1"), (Role.SERVICE, "pricing")
FREE_RIDER, STRANGER, OTHER_DRIVER = (Role.RIDER, "r2"), (Role.RIDER, "r3"), (Role.DRIVER, "d2")
UNKNOWN_RIDE = mint(CITY, START_MS)  # type: ignore[arg-type]
MATCHING = SERVICES[1]
NAMED = {method.name: (wire, method) for wire, method in METHODS}
BUILT = {
    "location": (LocationServicer, LocationServiceServicer),
    "matching": (MatchingServicer, MatchingServiceServicer),
    "pricing": (PricingServicer, PricingServiceServicer),
}
MANY_RANKS = {"offers": {"phases": [{"size": 2, "timeout_s": 5.0, "radius_m": 5000.0}]}}


@dataclass(frozen=True, slots=True)
class Scene:
    """A city in which d1 is on r1's way, d2 was asked too, and r2 holds a quote and waits for nothing."""

    world: World
    raw: Raw
    dsn: str
    ride_id: str
    won_offer_id: str
    lost_offer_id: str
    quote_token: bytes
    """r2's."""

    async def answer(self, name: str, request: Message | bytes, caller: Caller | None) -> Message | Refusal | None:
        """What this caller is answered."""
        return await self.raw.call(*NAMED[name], request, bearer(caller) if caller else None)


@pytest.fixture(scope="module")
async def scene(stores: Stores) -> AsyncIterator[Scene]:
    connection = await asyncpg.connect(stores.postgres_dsn)
    await connection.execute("DROP SCHEMA IF EXISTS matching CASCADE")
    await connection.close()
    async with Redis.from_url(stores.redis_url) as client:
        await client.flushall()
    async with (
        world_of(stores, gridport(matching=MANY_RANKS)) as world,
        phones(world, [NEAR, MIDDLE]) as (first, second),
        raw_channels(world) as raw,
    ):
        rider = Passenger(world, world.rider())
        ride = await rider.request()
        won, lost = await first.next_offer(), await second.next_offer()
        await first.app.accept(won.offer_id)
        await rider.until_state(RideState.ACCEPTED)
        await until(lambda: second.offers[lost.offer_id].state is OfferState.WITHDRAWN, "the other offer is not withdrawn")
        quote = await Passenger(world, world.rider("r2")).quote()
        yield Scene(world, raw, stores.postgres_dsn, ride.ride_id, won.offer_id, lost.offer_id, quote.quote_token)


def stop(lat: float = MIDDLE.lat, lng: float = MIDDLE.lng, label: str = "") -> ride_pb2.Stop:
    return ride_pb2.Stop(position=geo_pb2.LatLng(lat=lat, lng=lng), label=label)


def wish(scene: Scene, **rest: Any) -> pb.RequestRideRequest:
    """A good RequestRide of r2, but for what `rest` changes."""
    fields: dict[str, Any] = {
        "request_id": "wish",
        "city_id": CITY,
        "product": "economy",
        "stops": [stop(), stop(DROPOFF.lat, DROPOFF.lng)],
        "quote_token": scene.quote_token,
    }
    return pb.RequestRideRequest(**{**fields, **rest})


def with_stops(*stops: ride_pb2.Stop) -> Callable[[Scene], pb.RequestRideRequest]:
    return lambda scene: wish(scene, stops=stops)


def driver(**rest: Any) -> pb.UpsertDriverRequest:
    """A good UpsertDriver, but for what `rest` changes."""
    fields = {"request_id": "u", "city_id": CITY, "driver_id": "d9", "capabilities": ["economy"], "rating_milli": 4_000}
    return pb.UpsertDriverRequest(**{**fields, **rest})


def suspension(**rest: Any) -> pb.SuspendDriverRequest:
    """A request that would suspend d1, but for what is said otherwise."""
    good: dict[str, Any] = {"request_id": "x", "city_id": CITY, "driver_id": "d1", "suspended": True}
    return pb.SuspendDriverRequest(**{**good, **rest})


def flipped(token: bytes, at: int) -> bytes:
    return token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :]


INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")
OUTSIDE = ("INVALID_ARGUMENT", "OUTSIDE_SERVICE_AREA")
UNKNOWN_CITY = ("INVALID_ARGUMENT", "UNKNOWN_CITY")
ALTERED = ("INVALID_ARGUMENT", "QUOTE_ALTERED")
NOT_YOURS = ("PERMISSION_DENIED", "NOT_YOURS")

Case = tuple[str, str, "Caller", "Callable[[Scene], Message]", tuple[str, str], str]


def position_cases() -> list[Case]:
    """Where no rider can be."""
    bad = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    cases: list[Case] = []
    for name, value in bad.items():
        cases.append(
            (f"lat {name}", "RequestRide", FREE_RIDER, with_stops(stop(lat=value), stop()), INVALID, "stops[0].position")
        )
        cases.append(
            (f"lng {name}", "RequestRide", FREE_RIDER, with_stops(stop(), stop(lng=value)), INVALID, "stops[1].position")
        )
    for lat, lng in ((90.001, 0.0), (-90.001, 0.0), (0.0, 180.001), (0.0, -180.001), (1e300, 0.0)):
        cases.append(
            (f"{lat},{lng}", "RequestRide", FREE_RIDER, with_stops(stop(lat, lng), stop()), INVALID, "stops[0].position")
        )
    return cases


def id_cases() -> list[Case]:
    """Ids of a wrong form, or of nothing."""
    forms = {
        "empty": "",
        "a word": "ride",
        "overlong": "g" * 10_000,
        "small letters": UNKNOWN_RIDE.lower(),
        "two in one": f"{UNKNOWN_RIDE}-{UNKNOWN_RIDE}",
        "a newline": f"{UNKNOWN_RIDE}\n",
    }
    ride_calls: dict[str, tuple[Caller, type[Message]]] = {
        "GetRide": (RIDER, pb.GetRideRequest),
        "WatchRide": (RIDER, pb.WatchRideRequest),
        "CancelRide": (RIDER, pb.CancelRideRequest),
        "ReportArrival": (DRIVER, pb.ReportArrivalRequest),
        "StartRide": (DRIVER, pb.StartRideRequest),
        "CompleteRide": (DRIVER, pb.CompleteRideRequest),
        "CancelAssignment": (DRIVER, pb.CancelAssignmentRequest),
        "ExplainRide": (OPERATOR, pb.ExplainRideRequest),
        "EndRide": (OPERATOR, pb.EndRideRequest),
        "ReassignRide": (OPERATOR, pb.ReassignRideRequest),
    }
    offer_calls: dict[str, tuple[Caller, type[Message]]] = {
        "AckOffer": (DRIVER, pb.AckOfferRequest),
        "AcceptOffer": (DRIVER, pb.AcceptOfferRequest),
        "DeclineOffer": (DRIVER, pb.DeclineOfferRequest),
    }
    cases: list[Case] = []
    for field, calls, missing in (("ride_id", ride_calls, "RIDE_NOT_FOUND"), ("offer_id", offer_calls, "OFFER_NOT_FOUND")):
        for method, (caller, kind) in calls.items():

            def asking(value: str, kind: type[Message] = kind, field: str = field) -> Callable[[Scene], Message]:
                more = {"request_id": "i"} if "request_id" in kind.DESCRIPTOR.fields_by_name else {}
                return lambda _: kind(**{field: value, **more})

            cases += [(form, method, caller, asking(value), INVALID, field) for form, value in forms.items()]
            elsewhere = UNKNOWN_RIDE.replace(CITY, "atlantis")
            cases.append(("of another city", method, caller, asking(elsewhere), UNKNOWN_CITY, field))
            cases.append(("of nothing", method, caller, asking(UNKNOWN_RIDE), ("NOT_FOUND", missing), ""))
    return cases


def request_id_cases() -> list[Case]:
    """Every change needs a name that its client made."""
    changes: dict[str, tuple[Caller, Callable[[Scene], Message]]] = {
        "RequestRide": (FREE_RIDER, wish),
        "CancelRide": (RIDER, lambda s: pb.CancelRideRequest(ride_id=s.ride_id)),
        "GoOnline": (DRIVER, lambda _: pb.GoOnlineRequest(city_id=CITY)),
        "GoOffline": (DRIVER, lambda _: pb.GoOfflineRequest(city_id=CITY)),
        "AckOffer": (DRIVER, lambda s: pb.AckOfferRequest(offer_id=s.won_offer_id)),
        "AcceptOffer": (DRIVER, lambda s: pb.AcceptOfferRequest(offer_id=s.won_offer_id)),
        "DeclineOffer": (OTHER_DRIVER, lambda s: pb.DeclineOfferRequest(offer_id=s.lost_offer_id)),
        "ReportArrival": (DRIVER, lambda s: pb.ReportArrivalRequest(ride_id=s.ride_id)),
        "StartRide": (DRIVER, lambda s: pb.StartRideRequest(ride_id=s.ride_id)),
        "CompleteRide": (DRIVER, lambda s: pb.CompleteRideRequest(ride_id=s.ride_id)),
        "CancelAssignment": (DRIVER, lambda s: pb.CancelAssignmentRequest(ride_id=s.ride_id)),
        "UpsertDriver": (OPERATOR, lambda _: driver()),
        "SuspendDriver": (OPERATOR, lambda _: suspension()),
        "EndRide": (OPERATOR, lambda s: pb.EndRideRequest(ride_id=s.ride_id)),
        "ReassignRide": (OPERATOR, lambda s: pb.ReassignRideRequest(ride_id=s.ride_id)),
    }
    cases: list[Case] = []
    for method, (caller, good) in changes.items():
        for form, value in (("empty", ""), ("overlong", "r" * 65), ("a blank", "a b"), ("a sign first", "-a"), ("a NUL", "a\0")):

            def named(s: Scene, good: Callable[[Scene], Any] = good, value: str = value) -> Message:
                request = good(s)
                request.request_id = value
                return request  # type: ignore[no-any-return]

            cases.append((f"request_id: {form}", method, caller, named, INVALID, "request_id"))
    return cases


def city_cases() -> list[Case]:
    """Cities that are none, or not ours."""
    asking: dict[str, tuple[Caller, Callable[[Scene, str], Message]]] = {
        "RequestRide": (FREE_RIDER, lambda s, city: wish(s, city_id=city)),
        "ListRides": (RIDER, lambda _, city: pb.ListRidesRequest(city_id=city)),
        "GoOnline": (DRIVER, lambda _, city: pb.GoOnlineRequest(request_id="c", city_id=city)),
        "GoOffline": (DRIVER, lambda _, city: pb.GoOfflineRequest(request_id="c", city_id=city)),
        "WatchOffers": (DRIVER, lambda _, city: pb.WatchOffersRequest(city_id=city)),
        "UpsertDriver": (OPERATOR, lambda _, city: driver(city_id=city)),
        "GetDriver": (OPERATOR, lambda _, city: pb.GetDriverRequest(city_id=city, driver_id="d1")),
        "SuspendDriver": (OPERATOR, lambda _, city: suspension(city_id=city)),
        "GetStats": (OPERATOR, lambda _, city: pb.GetStatsRequest(city_id=city)),
        "CountDemand": (SERVICE, lambda _, city: pb.CountDemandRequest(city_id=city, resolution=8)),
    }
    forms = {"": INVALID, "Not a city": INVALID, "x" * 10_000: INVALID, "atlantis": UNKNOWN_CITY}
    return [
        (f"city {city[:12]!r}", method, caller, lambda s, make=make, city=city: make(s, city), expected, "city_id")  # type: ignore[misc]
        for method, (caller, make) in asking.items()
        for city, expected in forms.items()
    ]


CASES: list[Case] = [
    *position_cases(),
    *id_cases(),
    *request_id_cases(),
    *city_cases(),
    ("nowhere", "RequestRide", FREE_RIDER, with_stops(ride_pb2.Stop(), stop()), INVALID, "stops[0].position"),
    ("outside", "RequestRide", FREE_RIDER, with_stops(stop(), stop(41.0, -74.0)), OUTSIDE, "stops[1].position"),
    ("no stop", "RequestRide", FREE_RIDER, with_stops(), INVALID, "stops"),
    ("1 stop", "RequestRide", FREE_RIDER, with_stops(stop()), INVALID, "stops"),
    ("11 stops", "RequestRide", FREE_RIDER, with_stops(*[stop()] * 11), INVALID, "stops"),
    ("long label", "RequestRide", FREE_RIDER, with_stops(stop(), stop(label="l" * 201)), INVALID, "stops[1].label"),
    ("NUL in a label", "RequestRide", FREE_RIDER, with_stops(stop(label="a\0b"), stop()), INVALID, "stops[0].label"),
    ("long notes", "RequestRide", FREE_RIDER, lambda s: wish(s, notes="n" * 501), INVALID, "notes"),
    ("NUL in notes", "RequestRide", FREE_RIDER, lambda s: wish(s, notes="\0"), INVALID, "notes"),
    ("no product", "RequestRide", FREE_RIDER, lambda s: wish(s, product=""), INVALID, "product"),
    ("page as product", "RequestRide", FREE_RIDER, lambda s: wish(s, product="p" * 50_000), INVALID, "product"),
    (
        "unknown product",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, product="helicopter"),
        ("INVALID_ARGUMENT", "UNKNOWN_PRODUCT"),
        "",
    ),
    ("a time before 1970", "RequestRide", FREE_RIDER, lambda s: wish(s, pickup_at_ms=-1), INVALID, "pickup_at_ms"),
    (
        "a ride for the next minute",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, pickup_at_ms=START_MS + 60_000),
        INVALID,
        "pickup_at_ms",
    ),
    (
        "a ride in a month",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, pickup_at_ms=START_MS + 30 * 24 * 3_600_000),
        INVALID,
        "pickup_at_ms",
    ),
    (
        "a ride at the end of time",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, pickup_at_ms=2**63 - 1),
        INVALID,
        "pickup_at_ms",
    ),
    ("no quote", "RequestRide", FREE_RIDER, lambda s: wish(s, quote_token=b""), INVALID, "quote_token"),
    ("a book as quote", "RequestRide", FREE_RIDER, lambda s: wish(s, quote_token=b"q" * 100_000), INVALID, "quote_token"),
    ("some bytes as quote", "RequestRide", FREE_RIDER, lambda s: wish(s, quote_token=b"quote"), ALTERED, "quote_token"),
    (
        "quote: version altered",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, quote_token=flipped(s.quote_token, 0)),
        ALTERED,
        "quote_token",
    ),
    (
        "quote: signature altered",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, quote_token=flipped(s.quote_token, 9)),
        ALTERED,
        "quote_token",
    ),
    (
        "quote: content altered",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, quote_token=flipped(s.quote_token, -9 % len(s.quote_token))),
        ALTERED,
        "quote_token",
    ),
    ("quote: cut off", "RequestRide", FREE_RIDER, lambda s: wish(s, quote_token=s.quote_token[:-1]), ALTERED, "quote_token"),
    (
        "quote for other stops",
        "RequestRide",
        FREE_RIDER,
        lambda s: wish(s, stops=[stop(), stop(NEAR.lat, NEAR.lng)]),
        ALTERED,
        "stops",
    ),
    ("quote for another product", "RequestRide", FREE_RIDER, lambda s: wish(s, product="xl"), ALTERED, "product"),
    ("another rider's quote", "RequestRide", STRANGER, wish, NOT_YOURS, ""),
    ("a negative page", "ListRides", RIDER, lambda _: pb.ListRidesRequest(city_id=CITY, page_size=-1), INVALID, "page_size"),
    ("a huge page", "ListRides", RIDER, lambda _: pb.ListRidesRequest(city_id=CITY, page_size=201), INVALID, "page_size"),
    (
        "a page token of nobody's",
        "ListRides",
        RIDER,
        lambda _: pb.ListRidesRequest(city_id=CITY, page_token="'; --"),
        INVALID,
        "page_token",
    ),
    ("whose rides?", "ListRides", OPERATOR, lambda _: pb.ListRidesRequest(city_id=CITY), INVALID, "rider_id"),
    *(
        (
            "long reason",
            name,
            OPERATOR,
            lambda s, name=name: request_type(NAMED[name][1])(request_id="x", ride_id=s.ride_id, reason="r" * 201),
            INVALID,
            "reason",
        )
        for name in ("EndRide", "ReassignRide")
    ),
    ("long reason", "SuspendDriver", OPERATOR, lambda _: suspension(reason="r" * 201), INVALID, "reason"),
    ("a NUL as reason", "SuspendDriver", OPERATOR, lambda _: suspension(reason="why\0"), INVALID, "reason"),
    ("no driver", "SuspendDriver", OPERATOR, lambda _: suspension(driver_id=""), INVALID, "driver_id"),
    (
        "nobody",
        "SuspendDriver",
        OPERATOR,
        lambda _: suspension(driver_id="nobody"),
        ("NOT_FOUND", "DRIVER_NOT_FOUND"),
        "",
    ),
    (
        "long reason",
        "CancelAssignment",
        DRIVER,
        lambda s: pb.CancelAssignmentRequest(request_id="x", ride_id=s.ride_id, reason="r" * 201),
        INVALID,
        "reason",
    ),
    (
        "not a name",
        "ExplainRide",
        OPERATOR,
        lambda s: pb.ExplainRideRequest(ride_id=s.ride_id, driver_id="d 1"),
        INVALID,
        "driver_id",
    ),
    (
        "nobody",
        "ExplainRide",
        OPERATOR,
        lambda s: pb.ExplainRideRequest(ride_id=s.ride_id, driver_id="nobody"),
        ("NOT_FOUND", "DRIVER_NOT_FOUND"),
        "",
    ),
    ("no driver", "UpsertDriver", OPERATOR, lambda _: driver(driver_id=""), INVALID, "driver_id"),
    ("overlong driver", "UpsertDriver", OPERATOR, lambda _: driver(driver_id="d" * 65), INVALID, "driver_id"),
    ("not a name", "UpsertDriver", OPERATOR, lambda _: driver(driver_id="d/1"), INVALID, "driver_id"),
    ("better than the best", "UpsertDriver", OPERATOR, lambda _: driver(rating_milli=5_001), INVALID, "rating_milli"),
    ("rating 2**32 - 1", "UpsertDriver", OPERATOR, lambda _: driver(rating_milli=2**32 - 1), INVALID, "rating_milli"),
    ("cannot fly", "UpsertDriver", OPERATOR, lambda _: driver(capabilities=["economy", "fly"]), INVALID, "capabilities"),
    ("a page as capability", "UpsertDriver", OPERATOR, lambda _: driver(capabilities=["c" * 50_000]), INVALID, "capabilities"),
    ("can too much", "UpsertDriver", OPERATOR, lambda _: driver(capabilities=["economy"] * 33), INVALID, "capabilities"),
    ("no driver", "GetDriver", OPERATOR, lambda _: pb.GetDriverRequest(city_id=CITY), INVALID, "driver_id"),
    (
        "nobody",
        "GetDriver",
        OPERATOR,
        lambda _: pb.GetDriverRequest(city_id=CITY, driver_id="nobody"),
        ("NOT_FOUND", "DRIVER_NOT_FOUND"),
        "",
    ),
    ("too fine", "CountDemand", SERVICE, lambda _: pb.CountDemandRequest(city_id=CITY, resolution=10), INVALID, "resolution"),
    (
        "a driver whom nobody knows",
        "GoOnline",
        (Role.DRIVER, "d404"),
        lambda _: pb.GoOnlineRequest(request_id="n", city_id=CITY),
        ("NOT_FOUND", "DRIVER_NOT_FOUND"),
        "",
    ),
    (
        "offers for an unknown driver",
        "WatchOffers",
        (Role.DRIVER, "d404"),
        lambda _: pb.WatchOffersRequest(city_id=CITY),
        ("NOT_FOUND", "DRIVER_NOT_FOUND"),
        "",
    ),
    ("somebody else's ride", "GetRide", STRANGER, lambda s: pb.GetRideRequest(ride_id=s.ride_id), NOT_YOURS, ""),
    ("another driver's ride", "GetRide", OTHER_DRIVER, lambda s: pb.GetRideRequest(ride_id=s.ride_id), NOT_YOURS, ""),
    ("somebody else's ride", "WatchRide", STRANGER, lambda s: pb.WatchRideRequest(ride_id=s.ride_id), NOT_YOURS, ""),
    ("r2 as a driver", "GetRide", (Role.DRIVER, "r1"), lambda s: pb.GetRideRequest(ride_id=s.ride_id), NOT_YOURS, ""),
    (
        "somebody else's ride",
        "CancelRide",
        STRANGER,
        lambda s: pb.CancelRideRequest(request_id="x", ride_id=s.ride_id),
        NOT_YOURS,
        "",
    ),
    *(
        (
            "another driver's ride",
            name,
            OTHER_DRIVER,
            lambda s, name=name: request_type(NAMED[name][1])(request_id="x", ride_id=s.ride_id),
            NOT_YOURS,
            "",
        )
        for name in ("ReportArrival", "StartRide", "CompleteRide", "CancelAssignment")
    ),
    *(
        (
            "another driver's offer",
            name,
            OTHER_DRIVER,
            lambda s, name=name: request_type(NAMED[name][1])(request_id="x", offer_id=s.won_offer_id),
            NOT_YOURS,
            "",
        )
        for name in ("AckOffer", "AcceptOffer", "DeclineOffer")
    ),
    (
        "too late",
        "AcceptOffer",
        OTHER_DRIVER,
        lambda s: pb.AcceptOfferRequest(request_id="x", offer_id=s.lost_offer_id),
        ("FAILED_PRECONDITION", "ALREADY_TAKEN"),
        "",
    ),
    (
        "another driver",
        "GetDriver",
        OTHER_DRIVER,
        lambda _: pb.GetDriverRequest(city_id=CITY, driver_id="d1"),
        NOT_YOURS,
        "",
    ),
]


@pytest.mark.parametrize(
    ("method", "caller", "build", "expected", "field"), [case[1:] for case in CASES], ids=[f"{c[1]}: {c[0]}" for c in CASES]
)
async def test_a_bad_request_is_refused_and_writes_nothing(
    scene: Scene, method: str, caller: Caller, build: Callable[[Scene], Message], expected: tuple[str, str], field: str
) -> None:
    before = await rows(scene.dsn)
    refused = await scene.answer(method, build(scene), caller)
    assert isinstance(refused, Refusal), refused
    assert (refused.code, refused.reason) == expected
    assert refused.fields == ((field,) if field else ())
    assert await rows(scene.dsn) == before


def test_every_built_call_of_matching_has_its_bad_requests() -> None:
    assert {case[1] for case in CASES} == {method.name for wire, method in METHODS if wire is MATCHING and is_built(wire, method)}


def is_built(wire: Wire, method: MethodDescriptor) -> bool:
    servicer, generated = BUILT[wire.name]
    return getattr(servicer, method.name) is not getattr(generated, method.name)


def somebody(wire: Wire, method: MethodDescriptor) -> Caller:
    """A caller of a role that may."""
    return min(wire.access[method.name]), "somebody"


BAD_TOKENS = {
    "none": (None, "TOKEN_MISSING"),
    "empty": ("", "TOKEN_INVALID"),
    "another scheme": ("Basic aGV4aGFpbA==", "TOKEN_INVALID"),
    "no token": ("Bearer ", "TOKEN_INVALID"),
    "garbage": ("Bearer garbage", "TOKEN_INVALID"),
    "another's key": (f"Bearer {mint_token(b'x' * 32, Role.OPERATOR, 'o1')}", "TOKEN_INVALID"),
    "expired": (f"Bearer {mint_token(TOKEN_KEY, Role.OPERATOR, 'o1', -1)}", "TOKEN_EXPIRED"),
}


@pytest.mark.parametrize(("wire", "method"), METHODS, ids=lambda value: getattr(value, "name", None))
async def test_no_call_is_answered_without_a_good_token_of_its_role(scene: Scene, wire: Wire, method: MethodDescriptor) -> None:
    for authorization, reason in BAD_TOKENS.values():
        refused = await scene.raw.call(wire, method, b"", authorization)
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.reason) == ("UNAUTHENTICATED", reason)
    for role in set(Role) - wire.access[method.name]:
        refused = await scene.raw.call(wire, method, b"", bearer((role, "r1")))
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "ROLE_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("wire", "method"), [m for m in METHODS if not is_built(*m)], ids=lambda value: getattr(value, "name", None)
)
async def test_what_is_not_built_says_so(scene: Scene, wire: Wire, method: MethodDescriptor) -> None:
    refused = await scene.raw.call(wire, method, b"", bearer(somebody(wire, method)))
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.reason) == ("UNIMPLEMENTED", "NOT_IMPLEMENTED")


@pytest.mark.parametrize(("wire", "method"), [m for m in METHODS if is_built(*m)], ids=lambda value: getattr(value, "name", None))
async def test_bytes_that_are_no_message_are_refused(scene: Scene, wire: Wire, method: MethodDescriptor) -> None:
    refused = await scene.raw.call(wire, method, b"\x0a\x02\xff\xff\x07", bearer(somebody(wire, method)))
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.reason) == INVALID


@pytest.mark.parametrize("name", ["location", "matching", "pricing"])
async def test_health_and_reflection_ask_for_no_token(scene: Scene, name: str) -> None:
    (wire,) = [wire for wire in SERVICES if wire.name == name]
    async with grpc.aio.insecure_channel(getattr(scene.world.addresses, name)) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=wire.descriptor.full_name), timeout=5
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=5)
        listed = [service.name async for answer in answers for service in answer.list_services_response.service]
        assert wire.descriptor.full_name in listed


async def test_a_quote_is_refused_from_its_expiry_on(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, raw_channels(world) as raw:
        quote = await Passenger(world, world.rider("r2")).quote()
        scene = Scene(world, raw, postgres_dsn, "", "", "", quote.quote_token)
        world.clock.advance(quote.expires_at_ms - world.clock.now_ms())
        before = await rows(postgres_dsn)
        refused = await scene.answer("RequestRide", wish(scene), FREE_RIDER)
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "QUOTE_EXPIRED")
        assert await rows(postgres_dsn) == before


async def test_a_quote_buys_one_ride_and_a_rider_has_one_at_a_time(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,), raw_channels(world) as raw:
        rider = Passenger(world, world.rider("r2"))
        quote, other = await rider.quote(), await rider.quote()
        scene = Scene(world, raw, postgres_dsn, "", "", "", quote.quote_token)
        ride = await rider.request(quote)
        offer = await phone.next_offer()
        await phone.app.accept(offer.offer_id)
        await rider.until_state(RideState.ACCEPTED)

        before = await rows(postgres_dsn)
        busy = await scene.answer("RequestRide", wish(scene, quote_token=other.quote_token), FREE_RIDER)
        assert isinstance(busy, Refusal)
        assert (busy.code, busy.reason) == ("FAILED_PRECONDITION", "RIDER_BUSY")
        assert await rows(postgres_dsn) == before

        await phone.app.arrive(ride.ride_id)
        await phone.app.start(ride.ride_id)
        await phone.app.complete(ride.ride_id)
        before = await rows(postgres_dsn)
        used = await scene.answer("RequestRide", wish(scene), FREE_RIDER)
        assert isinstance(used, Refusal)
        assert (used.code, used.reason) == ("FAILED_PRECONDITION", "QUOTE_USED")
        assert await rows(postgres_dsn) == before
        assert isinstance(
            await scene.answer("RequestRide", wish(scene, quote_token=other.quote_token), FREE_RIDER), pb.RequestRideResponse
        )


TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([CITY, "economy", "atlantis", "d1", "r1", "\0", "x" * 20_000, "é" * 3_000, UNKNOWN_RIDE, "🚕" * 70]),
)
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
NUMBERS = st.one_of(st.floats(), st.sampled_from([MIDDLE.lat, MIDDLE.lng]))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Anything that fits the field's type."""
    if field.message_type is not None:
        return messages(field.message_type)
    if field.cpp_type in INTEGERS:
        low, high = INTEGERS[field.cpp_type]
        return st.one_of(st.integers(low, high), st.sampled_from([0, 1, 8, low, high]))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=200) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
    return NUMBERS.map(lambda x: 0.0 if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT and abs(x) > 3e38 else x)


def messages(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    """Any message of this type, with some of its fields."""
    kind = GetMessageClass(descriptor)
    fields = {
        field.name: st.lists(values(field), max_size=3) if field.is_repeated else values(field) for field in descriptor.fields
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda some: kind(**some))


FUZZED = [m for m in METHODS if is_built(*m)]


@pytest.mark.parametrize(("wire", "method"), FUZZED, ids=lambda value: getattr(value, "name", None))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_no_request_however_odd_is_a_defect(
    scene: Scene, wire: Wire, method: MethodDescriptor, data: st.DataObject
) -> None:
    """Whatever is sent is served, or refused for a reason of the list that is not INTERNAL."""
    request = data.draw(messages(method.input_type))
    caller = (min(wire.access[method.name]), "fuzz")
    try:
        answer = await scene.raw.call(wire, method, request, bearer(caller))
    except grpc.aio.AioRpcError as error:
        pytest.fail(f"{error.code()}: {error.details()}")
    if isinstance(answer, Refusal):
        assert answer.reason not in {"INTERNAL", "STORE_UNAVAILABLE", "PEER_UNAVAILABLE"}, answer


@pytest.mark.parametrize(("wire", "method"), FUZZED, ids=lambda value: getattr(value, "name", None))
async def test_random_bytes_are_no_defect(scene: Scene, wire: Wire, method: MethodDescriptor) -> None:
    chance = generator(7, method.full_name)
    bodies = [chance.bytes(int(size)) for size in chance.integers(0, 60, 30)]
    caller = bearer((min(wire.access[method.name]), "fuzz"))
    answers = await asyncio.gather(*(scene.raw.call(wire, method, body, caller) for body in bodies))
    assert {a.reason for a in answers if isinstance(a, Refusal)} & {"INTERNAL", "STORE_UNAVAILABLE"} == set()
