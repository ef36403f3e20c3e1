"""Which cities are there, and what do their files say? Unknown keys are refused, and every complaint names file and key."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import shapely
import shapely.geometry

from hexhail.cities.model import City, Product, Zone, ZoneKind
from hexhail.kernel.errors import DomainError
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import check_city_name, check_name
from hexhail.kernel.limits import MAX_CAPABILITIES
from hexhail.kernel.tables import TableError, structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.settings import Settings

P = TypeVar("P")

SECTIONS = ("location", "matching", "pricing", "routing", "simulator")


class CityError(ValueError):
    """A city's file is missing or wrong; one line says where and what."""


@dataclass(frozen=True, slots=True)
class _AreaTable:
    polygon: tuple[tuple[float, float], ...] = ()
    """Corners, (lat, lng) each."""
    geojson: str = ""
    """A file below HEXHAIL_DATA instead."""

    def __post_init__(self) -> None:
        if bool(self.polygon) == bool(self.geojson):
            raise ValueError("give either polygon or geojson")
        _check_corners(self.polygon)


@dataclass(frozen=True, slots=True)
class _CityTable:
    id: str
    name: str
    time_zone: str
    currency_code: str
    capabilities: tuple[str, ...]
    area: _AreaTable
    products: tuple[_ProductTable, ...]
    index_resolution: int = 9
    surge_resolution: int = 8
    buckets: int = 1
    freshness_limit_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.surge_resolution <= self.index_resolution <= 12:
            raise ValueError("0 <= surge_resolution <= index_resolution <= 12 does not hold")
        if self.buckets < 1:
            raise ValueError("buckets must be at least 1")
        if self.freshness_limit_s <= 0:
            raise ValueError("freshness_limit_s must be above 0")
        _check_names("capabilities", self.capabilities)
        _check_names("products", [product.id for product in self.products])
        if len(self.capabilities) > MAX_CAPABILITIES:
            raise ValueError(f"capabilities are more than {MAX_CAPABILITIES}")


@dataclass(frozen=True, slots=True)
class _ProductTable:
    id: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _ZoneTable:
    id: str
    kind: str
    polygon: tuple[tuple[float, float], ...]
    pickup_points: tuple[tuple[float, float], ...] = ()
    """For riders in a no-pickup zone, (lat, lng) each."""

    def __post_init__(self) -> None:
        _check_names("id", [self.id])
        if self.kind not in set(ZoneKind):
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(ZoneKind)}")
        _check_corners(self.polygon)
        if not all(Place(lat, lng).is_valid() for lat, lng in self.pickup_points):
            raise ValueError("pickup_points holds one that is not [latitude, longitude] in degrees")
        if self.pickup_points and self.kind != ZoneKind.NO_PICKUP:
            raise ValueError(f"pickup_points are for {ZoneKind.NO_PICKUP} zones only")


@dataclass(frozen=True, slots=True)
class _ZonesTable:
    zones: tuple[_ZoneTable, ...] = ()

    def __post_init__(self) -> None:
        ids = [zone.id for zone in self.zones]
        if len(set(ids)) < len(ids):
            raise ValueError(f"zones name {next(each for each in ids if ids.count(each) > 1)!r} twice")


def _check_corners(polygon: Sequence[tuple[float, float]]) -> None:
    if not all(Place(lat, lng).is_valid() for lat, lng in polygon):
        raise ValueError("polygon holds a corner that is not [latitude, longitude] in degrees")


def _check_names(key: str, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"{key} are none")
    if len(set(names)) < len(names):
        raise ValueError(f"{key} name one twice")
    for name in names:
        try:
            check_name(key, name)
        except DomainError as error:
            raise ValueError(error.message) from None


def _structure(table: Mapping[str, object], kind: type[P], where: str) -> P:
    try:
        return structure(table, kind, where)
    except TableError as error:
        raise CityError(str(error)) from None


def policy_of(city: City, section: str, kind: type[P]) -> P:
    """The parameters in one section of a city's file, as the frozen dataclass of whoever decides by them. Raises CityError."""
    return _structure(city.policies.get(section, {}), kind, f"{city.city_id}.toml [{section}]")


def load_city_file(path: Path, data_dir: Path) -> City:
    """The city that a TOML file describes. Raises CityError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CityError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CityError(f"{path}: not TOML: {error}") from None
    unknown = set(document) - {"city", "zones", *SECTIONS}
    if unknown:
        raise CityError(f"{path}: unknown sections {', '.join(sorted(unknown))}")
    table = _structure(document.get("city", {}), _CityTable, f"{path.name} [city]")
    try:
        city_id = check_city_name(table.id)
        ZoneInfo(table.time_zone)
    except DomainError as error:
        raise CityError(f"{path.name} [city]: {error.message}") from None
    except (ZoneInfoNotFoundError, ValueError):
        raise CityError(f"{path.name} [city]: {table.time_zone!r} is not a time zone") from None
    products = tuple(Product(p.id, p.capabilities) for p in table.products)
    area = _area(table.area, data_dir, path.name)
    city = City(
        city_id=city_id,
        name=table.name,
        time_zone=table.time_zone,
        currency_code=table.currency_code,
        index_resolution=table.index_resolution,
        surge_resolution=table.surge_resolution,
        buckets=table.buckets,
        freshness_limit_s=table.freshness_limit_s,
        capabilities=table.capabilities,
        products=products,
        area=area,
        policies={section: document.get(section, {}) for section in SECTIONS},
        zones=_zones(document.get("zones", []), area, path.name),
    )
    for product in products:
        try:
            city.capability_mask(product.capabilities)
        except DomainError as error:
            raise CityError(f"{path.name}: product {product.product_id}: {error.message}") from None
    return city


def _area(table: _AreaTable, data_dir: Path, where: str) -> shapely.Polygon | shapely.MultiPolygon:
    area: shapely.geometry.base.BaseGeometry
    if table.polygon:
        area = _polygon(table.polygon, f"{where} [city.area]")
    else:
        path = data_dir / table.geojson
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            area = shapely.geometry.shape(document.get("geometry", document))
        except OSError:
            raise CityError(
                f"{where}: {path} cannot be read: set HEXHAIL_DATA to the folder that holds {table.geojson}"
            ) from None
        except (ValueError, AttributeError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
            raise CityError(f"{where}: {path} is not a GeoJSON polygon: {error}") from None
    if not isinstance(area, shapely.Polygon | shapely.MultiPolygon) or area.is_empty or not area.is_valid:
        raise CityError(f"{where} [city.area]: not a valid polygon")
    return area


def _polygon(corners: Sequence[tuple[float, float]], where: str) -> shapely.Polygon:
    try:
        return shapely.Polygon([(lng, lat) for lat, lng in corners])
    except ValueError as error:
        raise CityError(f"{where}: polygon: {error}") from None


def _zones(tables: object, area: shapely.Polygon | shapely.MultiPolygon, where: str) -> tuple[Zone, ...]:
    zones = tuple(
        Zone(
            zone_id=table.id,
            kind=ZoneKind(table.kind),
            area=_polygon(table.polygon, f"{where}: zone {table.id}"),
            pickup_points=tuple(Place(lat, lng) for lat, lng in table.pickup_points),
        )
        for table in _structure({"zones": tables}, _ZonesTable, where).zones
    )
    for zone in zones:
        if zone.area.is_empty or not zone.area.is_valid:
            raise CityError(f"{where}: zone {zone.zone_id}: not a valid polygon")
        if not area.intersection(zone.area).area > 0:
            raise CityError(f"{where}: zone {zone.zone_id}: lies outside the service area altogether")
        for number, point in enumerate(zone.pickup_points, 1):
            wrong = _no_pickup_because(point, area, zones)
            if wrong:
                raise CityError(f"{where}: zone {zone.zone_id}: pickup point {number} {wrong}")
    return zones


def _no_pickup_because(point: Place, area: shapely.Polygon | shapely.MultiPolygon, zones: Sequence[Zone]) -> str:
    if not shapely.contains_xy(area, point.lng, point.lat):
        return "lies outside the service area"
    for zone in zones:
        if zone.kind is ZoneKind.NO_PICKUP and shapely.contains_xy(zone.area, point.lng, point.lat):
            return f"lies in the no-pickup zone {zone.zone_id}"
    return ""


def city_files(settings: Settings) -> dict[str, Path]:
    """City id -> file: the built-in ones, and those of HEXHAIL_CITIES_DIR, which come first."""
    built_in = Path(str(resources.files("hexhail.cities")))
    folders = [built_in, *([settings.cities_dir] if settings.cities_dir else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def load_city(city_id: str, settings: Settings) -> City:
    """The city of this id. Raises CityError."""
    files = city_files(settings)
    if city_id not in files:
        raise CityError(f"there is no city {city_id!r}: known are {', '.join(sorted(files))}")
    city = load_city_file(files[city_id], settings.data)
    if city.city_id != city_id:
        raise CityError(f"{files[city_id].name} calls itself {city.city_id!r}")
    return city
