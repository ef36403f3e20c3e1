"""What does a ride cost? Whole numbers from end to end; rounded half up, once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pricing.model import FareLine, FareLineKind

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLI = 1000
# One minor unit in parts that both a metre of a price per km and a second of a price per minute are whole numbers of.
_PARTS = 3000
_PARTS_PER_M = _PARTS // 1000
_PARTS_PER_S = _PARTS // 60


@dataclass(frozen=True, slots=True)
class FareParams:
    """A product's prices in minor units. Source: P1 of docs/sources.md; a price per minute is our choice, off by default.

    Raises ValueError for negative amounts.
    """

    base_minor: int = 500
    per_km_minor: int = 150
    per_min_minor: int = 0
    minimum_minor: int = 500

    def __post_init__(self) -> None:
        for name in ("base_minor", "per_km_minor", "per_min_minor", "minimum_minor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is below 0")


@dataclass(frozen=True, slots=True)
class HourBand:
    """A factor for the hours from `from_hour` up to, not including, `to_hour`. Raises ValueError where they are no such hours."""

    from_hour: int
    to_hour: int
    factor_milli: int

    def __post_init__(self) -> None:
        if not 0 <= self.from_hour < self.to_hour <= 24:
            raise ValueError(f"{self.from_hour} to {self.to_hour} are not hours of a day, the earlier first")
        if not 100 <= self.factor_milli <= 10_000:
            raise ValueError(f"factor_milli {self.factor_milli} is not of 100 to 10000")


@dataclass(frozen=True, slots=True)
class TimeOfDayParams:
    """Factors by the city's own hour; other hours have 1000. Source: P3 of docs/sources.md.

    Raises ValueError where bands overlap.
    """

    bands: tuple[HourBand, ...] = (HourBand(0, 5, 1200), HourBand(7, 9, 1300), HourBand(17, 19, 1300))

    def __post_init__(self) -> None:
        ordered = sorted(self.bands, key=lambda band: band.from_hour)
        for earlier, later in itertools.pairwise(ordered):
            if later.from_hour < earlier.to_hour:
                raise ValueError(f"the bands from {earlier.from_hour} and from {later.from_hour} overlap")


@dataclass(frozen=True, slots=True)
class Fare:
    """A price, and lines that sum exactly to it."""

    fare_minor: int
    lines: tuple[FareLine, ...]


def time_of_day_milli(at_ms: int, zone: ZoneInfo, params: TimeOfDayParams) -> int:
    """Which factor holds at this instant, by the clocks on the city's walls?

    An instant has one wall time in every zone, so the hour that summer time repeats or skips needs no rule of its own.
    """
    hour = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).hour
    return next((band.factor_milli for band in params.bands if band.from_hour <= hour < band.to_hour), _MILLI)


def fare(distance_m: int, duration_s: int, multiplier_milli: int, tod_milli: int, params: FareParams) -> Fare:
    """What does a ride of this length cost: (base + distance + duration) x time of day x surge, at least the minimum?

    Every running total is exact and rounded half up to minor units; a line is the difference of two of them. So the lines sum
    to the fare, and the fare itself was rounded once. Lines of nothing are left out.
    Never falls when distance, duration or multiplier grow. Source: P1 of docs/sources.md.
    Raises ValueError for negative arguments.
    """
    if min(distance_m, duration_s, multiplier_milli, tod_milli) < 0:
        raise ValueError("a fare of negative length or factors")
    base = params.base_minor * _PARTS
    with_distance = base + params.per_km_minor * distance_m * _PARTS_PER_M
    subtotal = with_distance + params.per_min_minor * duration_s * _PARTS_PER_S
    totals = (
        (FareLineKind.BASE, params.base_minor),
        (FareLineKind.DISTANCE, _half_up(with_distance, _PARTS)),
        (FareLineKind.DURATION, _half_up(subtotal, _PARTS)),
        (FareLineKind.TIME_OF_DAY, _half_up(subtotal * tod_milli, _PARTS * _MILLI)),
        (FareLineKind.SURGE, _half_up(subtotal * tod_milli * multiplier_milli, _PARTS * _MILLI * _MILLI)),
    )
    reached, lines = 0, []
    for kind, total in (*totals, (FareLineKind.MINIMUM, max(totals[-1][1], params.minimum_minor))):
        if total != reached:
            lines.append(FareLine(kind, total - reached))
        reached = total
    return Fare(reached, tuple(lines))


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
