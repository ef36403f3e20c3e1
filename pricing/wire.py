"""Protobuf <-> model, and every check of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.api.common.v1 import geo_pb2, money_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.api.pricing.v1 import quote_pb2, surge_pb2
from hexhail.kernel.errors import DomainError, Reason, invalid
from hexhail.kernel.geo import Place, cell_resolution
from hexhail.kernel.ids import check_name
from hexhail.kernel.limits import MAX_QUOTE_TOKEN_BYTES, MAX_STOPS, MIN_STOPS
from hexhail.kernel.units import E7
from pricing.model import FareLineKind, Quote, Receipt, StopE7, Surge, SurgeTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cities import Cities, City
    from hexhail.kernel.units import Cells, Ints
    from pricing.quoter import SignedQuote

MAX_CELLS: Final = 10_000
_MAX_COUNT: Final = 2**32 - 1

_LINE_KINDS: Final = {
    FareLineKind.BASE: quote_pb2.FARE_LINE_KIND_BASE,
    FareLineKind.DISTANCE: quote_pb2.FARE_LINE_KIND_DISTANCE,
    FareLineKind.DURATION: quote_pb2.FARE_LINE_KIND_DURATION,
    FareLineKind.TIME_OF_DAY: quote_pb2.FARE_LINE_KIND_TIME_OF_DAY,
    FareLineKind.SURGE: quote_pb2.FARE_LINE_KIND_SURGE,
    FareLineKind.MINIMUM: quote_pb2.FARE_LINE_KIND_MINIMUM,
}


@dataclass(frozen=True, slots=True)
class QuotesAsked:
    """A checked GetQuotesRequest."""

    city: City
    stops: tuple[StopE7, ...]
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerificationAsked:
    """A checked VerifyQuoteRequest."""

    city: City
    token: bytes
    rider_id: str
    product: str
    stops: tuple[StopE7, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SurgeAsked:
    """A checked request for surge; `cells` is None where none were named, else ascending, each once."""

    city: City
    cells: Cells | None


def quotes_asked(cities: Cities, request: pb.GetQuotesRequest) -> QuotesAsked:
    """Raises INVALID_FIELD, UNKNOWN_CITY, OUTSIDE_SERVICE_AREA, UNKNOWN_PRODUCT."""
    city = cities[request.city_id]
    places = _places(request.stops)
    for index, place in enumerate(places):
        city.check_stop(f"stops[{index}]", place)
    return QuotesAsked(city, _stops_e7(places), _products(city, request.products))


def verification_asked(cities: Cities, request: pb.VerifyQuoteRequest) -> VerificationAsked:
    """Raises INVALID_FIELD, UNKNOWN_CITY. Whether the stops are the quote's, and so in the area, is the signature's affair."""
    city = cities[request.city_id]
    if not request.quote_token:
        raise invalid("quote_token", "is empty")
    if len(request.quote_token) > MAX_QUOTE_TOKEN_BYTES:
        raise invalid("quote_token", f"is longer than {MAX_QUOTE_TOKEN_BYTES} bytes")
    places = _places(request.stops)
    for index, place in enumerate(places):
        if not place.is_valid():
            raise invalid(f"stops[{index}]", "is not a finite latitude of -90 to 90 and longitude of -180 to 180")
    return VerificationAsked(
        city,
        request.quote_token,
        check_name("rider_id", request.rider_id),
        check_name("product", request.product),
        _stops_e7(places),
    )


def surge_asked(cities: Cities, request: pb.GetSurgeRequest | pb.WatchSurgeRequest) -> SurgeAsked:
    """Raises INVALID_FIELD, UNKNOWN_CITY."""
    city = cities[request.city_id]
    if len(request.cells) > MAX_CELLS:
        raise invalid("cells", f"are more than {MAX_CELLS}")
    for index, cell in enumerate(request.cells):
        if cell_resolution(cell) != city.surge_resolution:
            raise invalid(f"cells[{index}]", f"is not an H3 cell of resolution {city.surge_resolution}")
    if not request.cells:
        return SurgeAsked(city, None)
    return SurgeAsked(city, np.unique(np.fromiter(request.cells, np.uint64, len(request.cells))))


def count_columns(peer: str, city: City, resolution: int, cells: Sequence[int], counts: Sequence[int]) -> tuple[Cells, Ints]:
    """A peer's counts as arrays: uint64[n], int64[n]. Raises PEER_UNAVAILABLE where they are not what was asked for."""
    if resolution != city.surge_resolution or len(cells) != len(counts):
        raise DomainError(Reason.PEER_UNAVAILABLE, f"{peer} answers with other cells than it was asked for", peer=peer)
    return np.fromiter(cells, np.uint64, len(cells)), np.fromiter(counts, np.int64, len(counts))


def quote_message(quote: Quote, token: bytes = b"") -> quote_pb2.Quote:
    """A quote, with its token where it is given to its rider."""
    return quote_pb2.Quote(
        quote_id=quote.quote_id,
        city_id=quote.city_id,
        rider_id=quote.rider_id,
        product=quote.product,
        stops=[geo_pb2.LatLng(lat=stop.lat_e7 / E7, lng=stop.lng_e7 / E7) for stop in quote.stops],
        fare=money_pb2.Money(amount_minor=quote.fare_minor, currency_code=quote.currency_code),
        receipt=_receipt_message(quote.receipt),
        distance_m=quote.distance_m,
        duration_s=quote.duration_s,
        issued_at_ms=quote.issued_at_ms,
        expires_at_ms=quote.expires_at_ms,
        quote_token=token,
    )


def quotes_message(quotes: Sequence[SignedQuote]) -> pb.GetQuotesResponse:
    """Quotes of one moment; they are as of the surge that they were priced with."""
    return pb.GetQuotesResponse(
        quotes=[quote_message(signed.quote, signed.token) for signed in quotes],
        as_of_ms=quotes[0].quote.receipt.surge.as_of_ms,
    )


def surge_message(city: City, surge: Surge, cells: Cells | None) -> pb.GetSurgeResponse:
    """The multipliers of these cells, or of every cell above 1000."""
    rows = surge.table.surging() if cells is None else surge.table.of(cells)
    return pb.GetSurgeResponse(
        surge=columns_message(city, rows), version=surge.version, as_of_ms=surge.as_of_ms, stale=surge.stale
    )


def watch_message(city: City, surge: Surge, cells: Cells | None, sent: Surge | None) -> pb.WatchSurgeResponse:
    """What to tell a watcher who was last told `sent`: the cells that changed, or a snapshot where that would leave a gap."""
    snapshot = sent is None or sent.epoch != surge.epoch or not sent.version <= surge.version <= sent.version + 1
    if cells is not None:
        rows = surge.table.of(cells)
        if not snapshot and sent is not None:
            rows = rows.changed_since(sent.table.of(cells))
    elif snapshot or sent is None:
        rows = surge.table.surging()
    else:
        rows = surge.table.changed_since(sent.table)
    return pb.WatchSurgeResponse(
        epoch=surge.epoch,
        sequence=surge.version,
        snapshot=snapshot,
        surge=columns_message(city, rows),
        as_of_ms=surge.as_of_ms,
        stale=surge.stale,
    )


def columns_message(city: City, table: SurgeTable) -> surge_pb2.SurgeColumns:
    """A table's columns; counts beyond 32 bits are cut to the largest."""
    return surge_pb2.SurgeColumns(
        resolution=city.surge_resolution,
        cells=table.cells.tolist(),
        multiplier_milli=table.multiplier_milli.tolist(),
        supply=np.minimum(table.supply, _MAX_COUNT).tolist(),
        demand_milli=np.minimum(table.demand_milli, _MAX_COUNT).tolist(),
    )


def _receipt_message(receipt: Receipt) -> quote_pb2.Receipt:
    basis = receipt.surge
    return quote_pb2.Receipt(
        lines=[quote_pb2.FareLine(kind=_LINE_KINDS[line.kind], amount_minor=line.amount_minor) for line in receipt.lines],
        multiplier_milli=receipt.multiplier_milli,
        time_of_day_milli=receipt.time_of_day_milli,
        surge=quote_pb2.SurgeBasis(
            cell=basis.cell,
            surge_version=basis.surge_version,
            as_of_ms=basis.as_of_ms,
            stale=basis.stale,
            supply=min(basis.supply, _MAX_COUNT),
            demand_milli=min(basis.demand_milli, _MAX_COUNT),
        ),
        travel_times_version=receipt.travel_times_version,
        travel_times_fell_back=receipt.travel_times_fell_back,
    )


def _places(stops: Sequence[geo_pb2.LatLng]) -> list[Place]:
    if not MIN_STOPS <= len(stops) <= MAX_STOPS:
        raise invalid("stops", f"are {len(stops)}, not {MIN_STOPS} to {MAX_STOPS}")
    return [Place(stop.lat, stop.lng) for stop in stops]


def _stops_e7(places: Sequence[Place]) -> tuple[StopE7, ...]:
    return tuple(StopE7(round(place.lat * E7), round(place.lng * E7)) for place in places)


def _products(city: City, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return tuple(product.product_id for product in city.products)
    for index, name in enumerate(names):
        check_name(f"products[{index}]", name)
        if name in names[:index]:
            raise invalid(f"products[{index}]", "names a product again")
        city.product(name)
    return tuple(names)
