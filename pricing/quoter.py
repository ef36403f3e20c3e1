"""Gives quotes: route, surge, fare, receipt, signature; and takes them back for checking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.errors import DomainError, FieldViolation, Reason
from hexhail.kernel.geo import Place, cell_of
from hexhail.kernel.ids import QuoteId, RiderId, mint
from hexhail.kernel.units import E7, MS_PER_S
from pricing.fare import fare, time_of_day_milli
from pricing.model import Quote, Receipt, StopE7, SurgeBasis
from pricing.quotes import check_quote, open_quote, sign_quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from pricing.board import Board
    from pricing.params import PricingParams
    from pricing.recorder import QuoteRecorder
    from routing.model import Router
    from routing.sources import RouterSource


@dataclass(frozen=True, slots=True)
class QuotedCity:
    """A city and what its prices need."""

    city: City
    params: PricingParams
    travel_times: RouterSource
    recorder: QuoteRecorder


@dataclass(frozen=True, slots=True)
class SignedQuote:
    """A quote and the token that stands for it."""

    quote: Quote
    token: bytes


class Quoter:
    """Prices rides for riders."""

    def __init__(self, *, clock: Clock, board: Board, quote_key: bytes) -> None:
        self._clock = clock
        self._board = board
        self._quote_key = quote_key

    async def quotes(
        self, one: QuotedCity, rider_id: str, stops: Sequence[StopE7], products: Sequence[str]
    ) -> tuple[SignedQuote, ...]:
        """What would a ride along these stops cost, in each of these products? One of each, in the order of `products`.

        The pickup's cell decides the surge, and the ride counts there as demand. Raises NO_ROUTE, SURGE_UNKNOWN.
        """
        city, now_ms = one.city, self._clock.now_ms()
        surge = self._board.current(city.city_id, now_ms)
        travelled = await one.travel_times.ask(lambda router: travel(router, stops, now_ms))
        distance_m, duration_s = travelled.value
        cell = cell_of(Place(stops[0].lat_e7 / E7, stops[0].lng_e7 / E7), city.surge_resolution)
        row = surge.table.of(np.array([cell], dtype=np.uint64))
        multiplier_milli = int(row.multiplier_milli[0])
        basis = SurgeBasis(cell, surge.version, surge.as_of_ms, surge.stale, int(row.supply[0]), int(row.demand_milli[0]))
        tod_milli = time_of_day_milli(now_ms, city.zone_info, one.params.time_of_day)
        given = []
        for product in products:
            priced = fare(distance_m, duration_s, multiplier_milli, tod_milli, one.params.fare_of(product))
            quote = Quote(
                quote_id=QuoteId(mint(city.city_id, now_ms)),
                city_id=city.city_id,
                rider_id=RiderId(rider_id),
                product=product,
                stops=tuple(stops),
                fare_minor=priced.fare_minor,
                currency_code=city.currency_code,
                receipt=Receipt(priced.lines, multiplier_milli, tod_milli, basis, travelled.version, travelled.fell_back),
                distance_m=distance_m,
                duration_s=duration_s,
                issued_at_ms=now_ms,
                expires_at_ms=now_ms + round(one.params.quote_expiry_s * MS_PER_S),
            )
            given.append(SignedQuote(quote, sign_quote(quote, self._quote_key)))
        await one.recorder.record(cell, rider_id, now_ms)
        return tuple(given)

    def verify(self, city: City, token: bytes, *, rider_id: str, product: str, stops: Sequence[StopE7]) -> Quote:
        """Which quote is this, and does it hold now? Raises QUOTE_ALTERED, NOT_YOURS, QUOTE_EXPIRED."""
        quote = open_quote(token, self._quote_key)
        check_quote(quote, city_id=city.city_id, rider_id=rider_id, product=product, stops=stops, now_ms=self._clock.now_ms())
        return quote


def travel(router: Router, stops: Sequence[StopE7], depart_ms: int) -> tuple[int, int]:
    """How far and how long is it from stop to stop, metres and seconds, each sum rounded half up?

    Raises NO_ROUTE naming the first stop that cannot be reached from the one before.
    """
    places = np.array([(stop.lat_e7, stop.lng_e7) for stop in stops], dtype=np.float64) / E7
    times_s = router.pair_times_s(places[:-1], places[1:], depart_ms)
    lengths_m = router.pair_distances_m(places[:-1], places[1:])
    unreachable = np.flatnonzero(~(np.isfinite(times_s) & np.isfinite(lengths_m)))
    if len(unreachable):
        field = f"stops[{int(unreachable[0]) + 1}]"
        violation = FieldViolation(field, "cannot be reached from the stop before it")
        raise DomainError(Reason.NO_ROUTE, f"{field} {violation.description}", violations=(violation,), field=field)
    return _whole(lengths_m), _whole(times_s)


def _whole(legs: np.typing.NDArray[np.float32]) -> int:
    return math.floor(math.fsum(legs.tolist()) + 0.5)
