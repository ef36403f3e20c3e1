"""What every service knows of a city."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import shapely

from hexhail.kernel.errors import DomainError, FieldViolation, Reason, invalid
from hexhail.kernel.ids import MAX_ID_LENGTH, CityId, check_city_name, check_minted, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Bools, Floats


@dataclass(frozen=True, slots=True)
class Product:
    """What a rider buys: every driver with these capabilities can serve it."""

    product_id: str
    capabilities: tuple[str, ...]


class ZoneKind(StrEnum):
    """What a zone is for."""

    NAMED = "named"
    NO_PICKUP = "no_pickup"


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of a city that has a name of its own, and perhaps a rule.

    pickup_points : where riders in a no-pickup zone are sent; none leaves it to the zone's surroundings
    """

    zone_id: str
    kind: ZoneKind
    area: shapely.Polygon
    pickup_points: tuple[Place, ...] = ()


@dataclass(frozen=True)
class City:
    """A city: where it is, what it sells, and its policies, each a table for the service that owns it."""

    city_id: CityId
    name: str
    time_zone: str
    currency_code: str
    index_resolution: int
    surge_resolution: int
    buckets: int
    freshness_limit_s: float
    capabilities: tuple[str, ...]
    products: tuple[Product, ...]
    area: shapely.Polygon | shapely.MultiPolygon
    policies: Mapping[str, Mapping[str, object]]
    zones: tuple[Zone, ...] = ()

    def __post_init__(self) -> None:
        """Prepares the area for fast look-ups."""
        shapely.prepare(self.area)

    @cached_property
    def zone_info(self) -> ZoneInfo:
        """The city's time zone."""
        return ZoneInfo(self.time_zone)

    def covers(self, lat: Floats, lng: Floats) -> Bools:
        """Which of these points lie in the service area? float64[n], float64[n], degrees -> bool[n]."""
        return np.asarray(shapely.contains_xy(self.area, lng, lat), dtype=np.bool_)

    def check_stop(self, field: str, place: Place) -> None:
        """Raises INVALID_FIELD where `place` is no point on the globe, OUTSIDE_SERVICE_AREA where it lies elsewhere."""
        if not place.is_valid():
            raise invalid(field, "is not a finite latitude of -90 to 90 and longitude of -180 to 180")
        if not shapely.contains_xy(self.area, place.lng, place.lat):
            violation = FieldViolation(field, f"lies outside the service area of {self.city_id}")
            raise DomainError(
                Reason.OUTSIDE_SERVICE_AREA, f"{field} {violation.description}", violations=(violation,), field=field
            )

    def product(self, product_id: str) -> Product:
        """The product of this name. Raises INVALID_FIELD where it is no name, UNKNOWN_PRODUCT where nothing here has it."""
        check_name("product", product_id)
        for product in self.products:
            if product.product_id == product_id:
                return product
        raise DomainError(Reason.UNKNOWN_PRODUCT, f"{self.city_id} does not sell {product_id!r}", product=product_id)

    def capability_mask(self, names: Sequence[str], field: str = "capabilities") -> int:
        """The bits of these capabilities, in the order of the city's list. Raises INVALID_FIELD for an unknown one."""
        mask = 0
        for name in names:
            if name not in self.capabilities:
                raise invalid(field, f"names {name[:MAX_ID_LENGTH]!r}, which is not among {', '.join(self.capabilities)}")
            mask |= 1 << self.capabilities.index(name)
        return mask

    def capability_names(self, mask: int) -> tuple[str, ...]:
        """The capabilities of a mask."""
        return tuple(name for bit, name in enumerate(self.capabilities) if mask >> bit & 1)


class Cities:
    """The cities that a process serves."""

    def __init__(self, cities: Sequence[City]) -> None:
        self._cities = {city.city_id: city for city in cities}

    def __iter__(self) -> Iterator[City]:
        """Each city."""
        return iter(self._cities.values())

    def __getitem__(self, city_id: str) -> City:
        """The city of this id. Raises INVALID_FIELD where it is no city's id, UNKNOWN_CITY where none of ours has it."""
        return self._served("city_id", check_city_name(city_id))

    def named_in(self, field: str, minted_id: str) -> City:
        """The city that an id of our making names. Raises INVALID_FIELD where it is none, UNKNOWN_CITY, both for `field`."""
        return self._served(field, check_minted(field, minted_id))

    def _served(self, field: str, city_id: CityId) -> City:
        city = self._cities.get(city_id)
        if city is None:
            violation = FieldViolation(field, f"names city {city_id!r}, which is not served here")
            raise DomainError(
                Reason.UNKNOWN_CITY, f"city {city_id!r} is not served here", violations=(violation,), field=field, city_id=city_id
            )
        return city
