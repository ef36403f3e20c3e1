"""Road networks from GraphML, as OSMnx saves them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # the operator's own file; expat bounds what entities may grow to

import numpy as np
import shapely

from hexhail.kernel import geo
from routing.bends import Bends, places_e7, ragged
from routing.car_tags import CLASS_SPEED_KMH, DEFAULT_SPEED_KMH, list_of, parse_maxspeed
from routing.links import Links
from routing.road_files import RoutingFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NO_GEOMETRY = -1
_LNG_LAT = frozenset({"epsg:4326", "ogc:crs84", "wgs84", "wgs 84"})


@dataclass(slots=True)
class _Reading:
    """What was read so far. Of each edge its two ends, its length in metres, time in seconds and speed in km/h, nan where not
    known, and its course as well-known text.
    """

    path: Path
    keys: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    lat: list[float] = field(default_factory=list)
    lng: list[float] = field(default_factory=list)
    ends: list[tuple[str, str]] = field(default_factory=list)
    costs: list[tuple[float, float, float]] = field(default_factory=list)
    courses: list[str | None] = field(default_factory=list)
    both_ways: bool = False


def read_graphml(path: Path) -> Links:
    """The connections of a GraphML file with the keys of OSMnx.

    Nodes have `y` (lat) and `x` (lng). Edges have, where known, `length` (metres, else the great circle), and the first of these
    that is there: `travel_time` (seconds), `speed_kph`, `maxspeed`, `highway` (its class), else 30 km/h; and their course as
    `geometry`, a LINESTRING. The edges of a file whose `edgedefault` is `undirected` lead both ways; it must have no one-ways.

    Raises RoutingFileError naming the file and what is wrong with it; OSError where it cannot be read.
    """
    reading = _Reading(path)
    try:
        for event, element in ET.iterparse(path, events=("start", "end")):  # noqa: S314
            name = element.tag.rpartition("}")[2]
            if event == "start":
                if name == "graph":
                    reading.both_ways = element.get("edgedefault") == "undirected"
            elif name in _READERS:
                _READERS[name](reading, element)
                element.clear()
            elif name == "data" and reading.keys.get(element.get("key", "")) == "crs":
                _check_crs(reading, element)
    except (ET.ParseError, LookupError, UnicodeError) as error:
        raise RoutingFileError(path, f"is not well-formed XML ({error})") from error
    if not reading.lat:
        raise RoutingFileError(path, "has no nodes")
    return _links(reading)


def _links(reading: _Reading) -> Links:
    for end in (end for ends in reading.ends for end in ends if end not in reading.numbers):
        raise RoutingFileError(reading.path, f"an edge names the node {end!r}, which is not there")
    lat, lng = np.array(reading.lat), np.array(reading.lng)
    tail = np.array([reading.numbers[tail] for tail, _ in reading.ends], dtype=np.int64)
    head = np.array([reading.numbers[head] for _, head in reading.ends], dtype=np.int64)
    length_m, time_s, speed_kmh = np.array(reading.costs, dtype=np.float64).reshape(-1, 3).T
    length_m = np.where(np.isnan(length_m), geo.distances_m(lat[tail], lng[tail], lat[head], lng[head]), length_m)
    time_s = np.where(np.isnan(time_s), length_m / (speed_kmh / 3.6), time_s)
    if reading.both_ways:
        tail, head = np.concatenate((tail, head)), np.concatenate((head, tail))
        length_m, time_s = np.tile(length_m, 2), np.tile(time_s, 2)
    return Links(lat, lng, tail, head, length_m, time_s, _bends(reading))


def _bends(reading: _Reading) -> Bends | None:
    """The points between the ends of each course; none where no edge has a course."""
    if not any(reading.courses):
        return None
    try:
        lines = shapely.from_wkt(np.array(reading.courses, dtype=object))
    except shapely.errors.ShapelyError as error:
        raise RoutingFileError(reading.path, f"an edge's geometry is not well-known text ({error})") from error
    strange = np.flatnonzero(~np.isin(shapely.get_type_id(lines), (_NO_GEOMETRY, shapely.GeometryType.LINESTRING)))
    if len(strange):
        tail, head = reading.ends[strange[0]]
        raise RoutingFileError(reading.path, f"edge {tail!r} to {head!r}: geometry is not a LINESTRING")
    if reading.both_ways:
        lines = np.concatenate((lines, shapely.reverse(lines)))
    places = shapely.get_coordinates(lines)
    if not (np.isfinite(places).all() and (np.abs(places) <= (180.0, 90.0)).all()):
        raise RoutingFileError(reading.path, "an edge's geometry holds points that are not on the globe")
    counts = shapely.get_num_coordinates(lines)
    end = np.cumsum(counts)
    first, inner = ragged(np.minimum(end - counts + 1, end), np.maximum(end - 1, end - counts + (counts > 0)))
    return Bends(first.astype(np.int32), places_e7(places[inner, 1]), places_e7(places[inner, 0]))


def _read_key(reading: _Reading, element: ET.Element) -> None:
    reading.keys[element.get("id", "")] = element.get("attr.name", "")


def _read_node(reading: _Reading, element: ET.Element) -> None:
    identity = element.get("id")
    if identity is None:
        raise RoutingFileError(reading.path, "a node has no id")
    if identity in reading.numbers:
        raise RoutingFileError(reading.path, f"node {identity!r} is there twice")
    values, where = _values(reading, element), f"node {identity!r}"
    reading.numbers[identity] = len(reading.lat)
    for column, key, limit in ((reading.lat, "y", 90.0), (reading.lng, "x", 180.0)):
        if key not in values:
            raise RoutingFileError(reading.path, f"{where} has no {key!r}")
        column.append(_number(reading.path, where, values, key, (-limit, limit)))


def _read_edge(reading: _Reading, element: ET.Element) -> None:
    source, target = element.get("source"), element.get("target")
    if source is None or target is None:
        raise RoutingFileError(reading.path, "an edge has no source or no target")
    values, where = _values(reading, element), f"edge {source!r} to {target!r}"
    if reading.both_ways and values.get("oneway", "").lower() in {"true", "yes", "1"}:
        raise RoutingFileError(reading.path, f"{where} is one-way in an undirected graph: save the directed one")
    length_m = _number(reading.path, where, values, "length") if "length" in values else math.nan
    time_s = _number(reading.path, where, values, "travel_time") if "travel_time" in values else math.nan
    reading.ends.append((source, target))
    reading.courses.append(values.get("geometry"))
    reading.costs.append((length_m, time_s, _speed_kmh(reading.path, where, values) if math.isnan(time_s) else math.nan))


_READERS = {"key": _read_key, "node": _read_node, "edge": _read_edge}


def _speed_kmh(path: Path, where: str, values: Mapping[str, str]) -> float:
    if "speed_kph" in values:
        speed = _number(path, where, values, "speed_kph")
        if speed == 0:
            raise RoutingFileError(path, f"{where}: speed_kph is 0")
        return speed
    limit = parse_maxspeed(values.get("maxspeed", ""))
    if limit is not None:
        return limit
    classes = [CLASS_SPEED_KMH[name] for name in list_of(values.get("highway", "")) if name in CLASS_SPEED_KMH]
    return min(classes, default=DEFAULT_SPEED_KMH)


def _check_crs(reading: _Reading, element: ET.Element) -> None:
    crs = (element.text or "").strip()
    if crs and crs.lower() not in _LNG_LAT:
        raise RoutingFileError(reading.path, f"is projected ({crs[:60]!r}): save the graph in degrees, epsg:4326")


def _values(reading: _Reading, element: ET.Element) -> dict[str, str]:
    return {
        reading.keys.get(child.get("key", ""), ""): child.text.strip()
        for child in element
        if child.tag.rpartition("}")[2] == "data" and child.text
    }


def _number(path: Path, where: str, values: Mapping[str, str], key: str, limits: tuple[float, float] = (0.0, math.inf)) -> float:
    try:
        value = float(values[key])
    except ValueError:
        raise RoutingFileError(path, f"{where}: {key} is {values[key][:60]!r}, not a number") from None
    if not (math.isfinite(value) and limits[0] <= value <= limits[1]):
        raise RoutingFileError(path, f"{where}: {key} is {value}, out of range")
    return value
