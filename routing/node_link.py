"""Road networks from networkx node-link JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from routing.car_tags import DEFAULT_SPEED_KMH
from routing.links import Links
from routing.road_files import RoutingFileError

if TYPE_CHECKING:
    from pathlib import Path


def read_node_link(path: Path) -> Links:
    """The connections of a networkx node-link JSON file.

    Nodes have `id` (anything), `y` (lat) and `x` (lng); the list `links` or `edges` has `source`, `target` and, where known,
    `length` (metres, else the great circle), `travel_time` (seconds, else from `speed_kmph`, else from 30 km/h). An undirected
    graph's edges lead both ways.

    Raises RoutingFileError naming the file and what is wrong with it; OSError where it cannot be read.
    """
    document = _document(path)
    numbers, lat, lng = _nodes(path, document)
    links = _links(path, document, numbers, lat, lng)
    ends = np.array([link[:2] for link in links], dtype=np.int64).reshape(-1, 2)
    costs = np.array([link[2:] for link in links], dtype=np.float64).reshape(-1, 2)
    return Links(np.array(lat), np.array(lng), ends[:, 0], ends[:, 1], costs[:, 0], costs[:, 1])


def _document(path: Path) -> Mapping[str, object]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RoutingFileError(path, f"is not JSON ({error})") from error
    if not isinstance(document, Mapping):
        raise RoutingFileError(path, "is not a node-link graph: no JSON object at the top")
    return document


def _items(path: Path, document: Mapping[str, object], *names: str) -> list[Mapping[str, object]]:
    found = next((document[name] for name in names if name in document), None)
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise RoutingFileError(path, f"is not a node-link graph: no list of objects named {' or '.join(names)}")
    return found


def _nodes(path: Path, document: Mapping[str, object]) -> tuple[dict[object, int], list[float], list[float]]:
    numbers: dict[object, int] = {}
    lat: list[float] = []
    lng: list[float] = []
    for node in _items(path, document, "nodes"):
        identity = _identity(path, node, "id")
        if identity in numbers:
            raise RoutingFileError(path, f"node {identity!r} is there twice")
        numbers[identity] = len(lat)
        lat.append(_number(path, f"node {identity!r}", node, "y", (-90.0, 90.0)))
        lng.append(_number(path, f"node {identity!r}", node, "x", (-180.0, 180.0)))
    if not numbers:
        raise RoutingFileError(path, "has no nodes")
    return numbers, lat, lng


def _links(
    path: Path, document: Mapping[str, object], numbers: dict[object, int], lat: list[float], lng: list[float]
) -> list[tuple[int, int, float, float]]:
    both_ways = document.get("directed") is False
    links: list[tuple[int, int, float, float]] = []
    for item in _items(path, document, "links", "edges"):
        ends = [_identity(path, item, key) for key in ("source", "target")]
        unknown = [end for end in ends if end not in numbers]
        if unknown:
            raise RoutingFileError(path, f"an edge names the node {unknown[0]!r}, which is not there")
        tail, head = (numbers[end] for end in ends)
        where = f"edge {ends[0]!r} to {ends[1]!r}"
        if "length" in item:
            length_m = _number(path, where, item, "length")
        else:
            length_m = float(geo.distances_m(lat[tail], lng[tail], lat[head], lng[head]))
        time_s = _time_s(path, where, item, length_m)
        ways = ((tail, head, length_m, time_s), (head, tail, length_m, time_s))
        links.extend(ways if both_ways else ways[:1])
    return links


def _time_s(path: Path, where: str, item: Mapping[str, object], length_m: float) -> float:
    if "travel_time" in item:
        return _number(path, where, item, "travel_time")
    if "speed_kmph" not in item:
        return length_m / (DEFAULT_SPEED_KMH / 3.6)
    speed_kmh = _number(path, where, item, "speed_kmph")
    if speed_kmh == 0:
        raise RoutingFileError(path, f"{where}: speed_kmph is 0")
    return length_m / (speed_kmh / 3.6)


def _identity(path: Path, item: Mapping[str, object], key: str) -> object:
    if key not in item:
        raise RoutingFileError(path, f"a node or edge has no {key!r}")
    identity = item[key]
    return identity if isinstance(identity, str | int | float) else json.dumps(identity)


def _number(path: Path, where: str, item: Mapping[str, object], key: str, limits: tuple[float, float] = (0.0, math.inf)) -> float:
    low, high = limits
    if key not in item:
        raise RoutingFileError(path, f"{where} has no {key!r}")
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RoutingFileError(path, f"{where}: {key} is {value!r}, not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise RoutingFileError(path, f"{where}: {key} is {value}, out of range")
    return float(value)
