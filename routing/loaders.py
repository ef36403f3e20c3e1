"""Road networks from files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from routing.graph import RoadGraph, graph_of_edges, largest_component

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_SPEED_KMH = 30.0
"""Of a street whose file says nothing. Source: our choice, the general limit of many inner cities."""

MAX_SPEED_KMH = 130.0
"""A street that claims more (a slip in the map) is driven at this."""


class RoutingFileError(ValueError):
    """A road file cannot be used: which one, and what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What a loader kept and what it left out.

    nodes_dropped, edges_dropped : outside the largest strongly connected component
    parallel_dropped : slower twins of an edge between the same two nodes
    loops_dropped : edges that lead to their own tail
    slowed : edges whose speed was above MAX_SPEED_KMH
    """

    nodes: int
    edges: int
    nodes_dropped: int
    edges_dropped: int
    parallel_dropped: int
    loops_dropped: int
    slowed: int


@dataclass(frozen=True, slots=True)
class _Link:
    tail: int
    head: int
    length_m: float
    time_s: float


def load_road_graph(path: Path) -> tuple[RoadGraph, GraphReport]:
    """The road graph of a networkx node-link JSON file, and what was left out of it.

    Nodes have `id` (anything), `y` (lat) and `x` (lng); the list `links` or `edges` has `source`, `target` and, where known,
    `length` (metres, else the great circle), `travel_time` (seconds, else from `speed_kmph`, else from 30 km/h). An undirected
    graph's edges lead both ways. Of parallel edges the fastest is kept.

    Raises RoutingFileError naming the file and what is wrong with it; OSError where it cannot be read.
    """
    document = _document(path)
    numbers, lat, lng = _nodes(path, document)
    links = _links(path, document, numbers, lat, lng)
    slowest_s = [link.length_m / (MAX_SPEED_KMH / 3.6) for link in links]
    slowed = sum(link.time_s < least_s for link, least_s in zip(links, slowest_s, strict=True))
    chosen: dict[tuple[int, int], tuple[float, float]] = {}
    loops = 0
    for link, least_s in zip(links, slowest_s, strict=True):
        if link.tail == link.head:
            loops += 1
            continue
        offered = (max(link.time_s, least_s), link.length_m)
        ends = (link.tail, link.head)
        chosen[ends] = min(chosen.get(ends, offered), offered)
    if not chosen:
        raise RoutingFileError(path, "has no edge between two nodes")
    ends_of = np.array(list(chosen), dtype=np.int32)
    costs = np.array(list(chosen.values()))
    whole = graph_of_edges(
        np.array(lat), np.array(lng), tail=ends_of[:, 0], head=ends_of[:, 1], length_m=costs[:, 1], time_s=costs[:, 0]
    )
    graph = largest_component(whole)
    if not graph.n_edges:
        raise RoutingFileError(path, "has no two nodes that reach each other")
    report = GraphReport(
        nodes=graph.n_nodes,
        edges=graph.n_edges,
        nodes_dropped=whole.n_nodes - graph.n_nodes,
        edges_dropped=whole.n_edges - graph.n_edges,
        parallel_dropped=len(links) - loops - len(chosen),
        loops_dropped=loops,
        slowed=slowed,
    )
    return graph, report


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
) -> list[_Link]:
    both_ways = document.get("directed") is False
    links: list[_Link] = []
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
        links.append(_Link(tail, head, length_m, time_s))
        if both_ways:
            links.append(_Link(head, tail, length_m, time_s))
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
