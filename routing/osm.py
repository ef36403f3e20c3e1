"""Road networks from OpenStreetMap, as taxis drive them."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import osmium

from routing.bends import E7
from routing.car_tags import CLASS_SPEED_KMH, MAX_SPEED_KMH, Direction, blocks, directions, is_rule, is_street, speed_kmh
from routing.chains import Segments, cut_at, join, strong_part, unite
from routing.road_files import GraphReport, RoutingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.graph import RoadGraph

Entity = TypeVar("Entity", osmium.osm.Node, osmium.osm.Way)

MAX_MISSING_SHARE = 0.25
"""A file that lacks more of the points that its streets name is refused. Source: our choice; a clipped extract lacks those
beyond its border, a few in a hundred.
"""


_BITS = {osmium.osm.Node: osmium.osm.NODE, osmium.osm.Way: osmium.osm.WAY}


@dataclass(frozen=True, slots=True)
class OsmParams:
    """How streets are read. Raises ValueError naming the field.

    class_speed_kmh : how fast one drives on streets without a limit, by class; classes that are not named keep their own
    longest_edge_m : a street longer than this without a junction gets points in between, for places are joined to points
    """

    class_speed_kmh: Mapping[str, float] = field(default_factory=dict)
    longest_edge_m: float = 500.0

    def __post_init__(self) -> None:
        for name, speed in self.class_speed_kmh.items():
            if name not in CLASS_SPEED_KMH:
                raise ValueError(f"class_speed_kmh: {name!r} is no class of streets for cars: {', '.join(CLASS_SPEED_KMH)}")
            if not 0 < speed <= MAX_SPEED_KMH:
                raise ValueError(f"class_speed_kmh: {name} is {speed}, not above 0 and at most {MAX_SPEED_KMH:g}")
        if not (math.isfinite(self.longest_edge_m) and self.longest_edge_m >= 1):
            raise ValueError(f"longest_edge_m is {self.longest_edge_m}, not 1 or more")


@dataclass(slots=True)
class _Streets:
    """What the ways say: `refs` lists the points of all of them, way i those from `first[i]` to `first[i + 1]`; km/h, 0 where
    that direction is closed.
    """

    refs: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("q", [0]))
    forward_kmh: array[float] = field(default_factory=lambda: array("d"))
    backward_kmh: array[float] = field(default_factory=lambda: array("d"))
    closed: int = 0
    slowed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """ids : int64[n], rising; lat, lng : float64[n], nan where missing; blocked : bool[n]"""

    ids: Ints
    lat: Floats
    lng: Floats
    blocked: Bools


def read_osm(path: Path, kind: str, params: OsmParams) -> tuple[RoadGraph, GraphReport]:
    """The road graph of an OpenStreetMap file (`pbf`, `osm`, `osm.gz`, `osm.bz2`), and what was left out of it.

    Only streets that taxis may use (`car_tags`); they end at bollards and where the file lacks their points. The largest strongly
    connected part remains; points that are no junctions become part of an edge. Turn restrictions are not read. The order of
    the file's elements does not matter; it is read twice.

    Raises RoutingFileError for a file that is damaged, holds something twice, lacks too much or has no streets; OSError.
    """
    source = osmium.io.File(path, kind)
    streets = _streets(path, source, dict(CLASS_SPEED_KMH) | dict(params.class_speed_kmh))
    if not streets.refs:
        raise RoutingFileError(path, "has no streets that cars may use")
    points = _points(path, source, streets.refs)
    missing = np.isnan(points.lat)
    if missing.mean() > MAX_MISSING_SHARE:
        lacking = f"lacks {missing.sum():,} of the {len(missing):,} points that its streets name"
        raise RoutingFileError(path, f"{lacking}: cut off, or not whole")
    segments, parallel = _segments(streets, points)
    if not len(segments.a):
        raise RoutingFileError(path, "has no edge between two nodes")
    lat, lng, segments = cut_at(points.blocked, points.lat, points.lng, segments)
    kept, points_dropped, directions_dropped = strong_part(len(lat), segments)
    if not len(kept.a):
        raise RoutingFileError(path, "has no two nodes that reach each other")
    joined = join(lat, lng, kept, params.longest_edge_m)
    graph = joined.graph
    report = GraphReport(
        nodes=graph.n_nodes,
        edges=graph.n_edges,
        length_m=float(graph.length_m.sum()),
        nodes_dropped=points_dropped,
        edges_dropped=directions_dropped,
        dropped_m=max(_driven_m(segments) - _driven_m(kept), 0.0),
        parallel_dropped=parallel,
        slowed=streets.slowed,
        ways=len(streets.forward_kmh),
        ways_closed=streets.closed,
        points_joined=joined.points_joined,
        points_added=joined.points_added,
        points_missing=int(missing.sum()),
        barriers=int(points.blocked.sum()),
    )
    return graph, report


def _entities(path: Path, source: osmium.io.File, kind: type[Entity], wanted: osmium.BaseFilter) -> Iterator[Entity]:
    """What a file holds of a kind. All that osmium says of a damaged file becomes RoutingFileError."""
    try:
        processor = osmium.FileProcessor(source, _BITS[kind]).with_filter(wanted)
        entities = iter(processor)
        if processor.header.has_multiple_object_versions:
            raise RoutingFileError(path, "holds several versions of its elements: a history or a change file, not a map")
    except RuntimeError as error:
        raise RoutingFileError(path, f"cannot be read as OpenStreetMap data ({error})") from error
    while True:
        try:
            entity = next(entities, None)
        except (RuntimeError, ValueError, osmium.InvalidLocationError) as error:
            raise RoutingFileError(path, f"cannot be read as OpenStreetMap data ({error})") from error
        if entity is None:
            return
        if not isinstance(entity, kind):
            continue
        if entity.deleted:
            raise RoutingFileError(path, f"holds the deleted element {entity.id}: a history or a change file, not a map")
        yield entity


def _streets(path: Path, source: osmium.io.File, class_speed_kmh: Mapping[str, float]) -> _Streets:
    streets = _Streets()
    seen: set[int] = set()

    @cache  # most streets are tagged as others are
    def speeds_kmh(told: tuple[tuple[str, str], ...]) -> tuple[float, ...] | None:
        tags = dict(told)
        if not is_street(tags):
            return None
        allowed = directions(tags)
        return tuple(speed_kmh(tags, course, class_speed_kmh) if course in allowed else 0.0 for course in Direction)

    for way in _entities(path, source, osmium.osm.Way, osmium.filter.KeyFilter("highway")):
        if way.id in seen:
            raise RoutingFileError(path, f"way {way.id} is there twice: extracts that were merged without looking")
        seen.add(way.id)
        speeds = speeds_kmh(tuple(sorted((key, value) for key, value in way.tags if is_rule(key))))
        if speeds is None:
            continue
        if not any(speeds):
            streets.closed += 1
            continue
        streets.slowed += max(speeds) > MAX_SPEED_KMH
        streets.refs.extend(node.ref for node in way.nodes)
        streets.first.append(len(streets.refs))
        for column, speed in zip((streets.forward_kmh, streets.backward_kmh), speeds, strict=True):
            column.append(min(speed, MAX_SPEED_KMH))
    return streets


def _points(path: Path, source: osmium.io.File, refs: array[int]) -> _Points:
    ids = np.unique(np.frombuffer(refs, dtype=np.int64))
    is_draft = ids[0] < 0  # osmium's filter takes no such ids
    wanted = osmium.filter.EntityFilter(osmium.osm.NODE) if is_draft else osmium.filter.IdFilter(map(int, ids))
    read, lat_e7, lng_e7, barriers = array("q"), array("i"), array("i"), array("q")
    for node in _entities(path, source, osmium.osm.Node, wanted):
        place = node.location
        if not place.valid():
            raise RoutingFileError(path, f"node {node.id} has no place on the globe")
        read.append(node.id)
        lat_e7.append(place.y)
        lng_e7.append(place.x)
        if len(node.tags) and blocks({tag.k: tag.v for tag in node.tags}):
            barriers.append(node.id)
    found = np.frombuffer(read, dtype=np.int64)
    order = np.argsort(found, kind="stable")
    order = order[np.isin(found[order], ids)]
    found, places = found[order], np.column_stack((np.frombuffer(lat_e7, np.int32), np.frombuffer(lng_e7, np.int32)))[order]
    moved = np.flatnonzero((np.diff(found) == 0) & (np.diff(places, axis=0) != 0).any(axis=1))
    if len(moved):
        raise RoutingFileError(path, f"node {found[moved[0]]} is there twice, at different places")
    lat, lng = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    numbers = np.searchsorted(ids, found)
    lat[numbers], lng[numbers] = places[:, 0] / E7, places[:, 1] / E7
    return _Points(ids, lat, lng, np.isin(ids, np.frombuffer(barriers, dtype=np.int64)))


def _segments(streets: _Streets, points: _Points) -> tuple[Segments, int]:
    numbers = np.searchsorted(points.ids, np.frombuffer(streets.refs, dtype=np.int64))
    first = np.frombuffer(streets.first, dtype=np.int64)
    way = np.repeat(np.arange(len(first) - 1), np.diff(first))
    tail, head = numbers[:-1], numbers[1:]
    there = (way[:-1] == way[1:]) & ~np.isnan(points.lat[tail]) & ~np.isnan(points.lat[head])
    tail, head, way = tail[there], head[there], way[:-1][there]
    speeds = (np.frombuffer(streets.forward_kmh)[way], np.frombuffer(streets.backward_kmh)[way])
    return unite(points.lat, points.lng, tail, head, speeds)


def _driven_m(segments: Segments) -> float:
    """How long are all directions together, metres?"""
    directions = np.isfinite(segments.forward_s).astype(np.int64) + np.isfinite(segments.backward_s)
    return float((segments.length_m * directions).sum())
