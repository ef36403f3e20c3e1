"""How Valhalla is asked, and what its replies mean.

Source: valhalla/valhalla, docs/docs/api: matrix/api-reference.md (sources_to_targets, verbose and not; which matrices may have a
departure time), turn-by-turn/api-reference.md (locations, date_time, trip, legs and maneuvers, shapes of six decimals),
locate/api-reference.md, openapi.yaml (search_cutoff, the error object); error codes: src/exceptions.cc; that a matrix without
any connection is error 442, and null is a pair without one: src/tyr/matrix_serializer.cc.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S
from routing.engine_params import version_of
from routing.engine_replies import (
    POST,
    AskForLess,
    EngineFault,
    Fault,
    Gaps,
    Request,
    Table,
    Way,
    cells,
    member,
    number,
    points_of,
    read_json,
    spread,
    step_lengths_m,
    unreadable,
)
from routing.polyline import decode_polyline

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.engine_params import ValhallaParams
    from routing.engine_replies import Reply

M_PER_KM = 1000
KILOMETRES = "kilometers"
DEPART_AT = 1
UNCONNECTED, NOTHING_NEAR, PAIR_UNREACHABLE, NO_PATH = 170, 171, 441, 442
FOR_ONE = {UNCONNECTED, NOTHING_NEAR, PAIR_UNREACHABLE}
"""Errors that speak of a place or a pair in the request, not of the request."""


class ValhallaDialect:
    """A `Dialect`. What a matrix tells of where places were moved differs between versions (the input again, or the nearest
    edge), and its concise form tells nothing: `locate` is asked before, and `search_cutoff` sent along.
    """

    gaps_first = True
    max_places = 500

    def __init__(self, params: ValhallaParams, time_zone: str) -> None:
        self._costing = params.costing
        self._cutoff_m = math.ceil(params.snap_limit_m)
        self._zone = ZoneInfo(time_zone) if params.departure else None
        self.hears_departure = params.departure
        self.max_side = self.max_pairs = params.max_matrix_location_pairs
        self.version = version_of("valhalla", params, params.costing, time_zone if params.departure else "")

    def ask_gaps(self, places: Floats) -> Request:
        """Which edges are near?"""
        return self._post("/locate", {"locations": self._locations(places), "verbose": False})

    def read_gaps(self, reply: Reply, places: Floats) -> Gaps:
        """How far is the nearest edge?"""
        document = _document(reply)
        located = document.get("locations") if isinstance(document, dict) else document
        if not isinstance(located, list) or len(located) != len(places):
            raise unreadable(f"locate: no list of {len(places)} locations")
        edges = [_edges(one) for one in located]
        of = np.repeat(np.arange(len(places)), [len(some) for some in edges])
        points = points_of([point for some in edges for point in some], "locate: edges")
        gap_m = np.full(len(places), np.inf)
        np.minimum.at(gap_m, of, geo.distances_m(places[of, 0], places[of, 1], points[:, 0], points[:, 1]))
        return Gaps(gap_m)

    def ask_table(self, origins: Floats, destinations: Floats, depart_ms: int | None) -> Request:
        """Times and distances, in the concise form."""
        sides = {"sources": self._locations(origins), "targets": self._locations(destinations)}
        return self._post("/sources_to_targets", {**sides, "verbose": False, **self._departing(depart_ms)})

    def read_table(self, reply: Reply, origins: Floats, destinations: Floats) -> Table:
        """What does it say, concisely or not? Distances come in kilometres."""
        n, m = len(origins), len(destinations)
        try:
            document = _document(reply)
        except _NoPathError:
            return Table(np.full((n, m), np.inf), np.full((n, m), np.inf))
        _check_units(document)
        answer = document.get("sources_to_targets")
        rows = answer if isinstance(answer, dict) else _rows(answer, n, m)
        times_s, distances_km = (cells(rows.get(key), n, m, key) for key in ("durations", "distances"))
        if (np.isinf(times_s) != np.isinf(distances_km)).any():
            raise unreadable("durations and distances do not have their nulls in the same places")
        return Table(times_s, distances_km * M_PER_KM)

    def ask_way(self, ends: Floats, depart_ms: int) -> Request:
        """The shape, with what each manoeuvre takes."""
        return self._post(
            "/route", {"locations": self._locations(ends), "directions_type": "maneuvers", **self._departing(depart_ms)}
        )

    def read_way(self, reply: Reply, ends: Floats) -> Way:  # noqa: ARG002
        """What does it say? A manoeuvre's time is dealt out by length, and all of it makes the trip's time."""
        try:
            document = _document(reply)
        except _NoPathError as error:
            raise AskForLess(str(error)) from None
        trip = member(document, "trip", dict)
        _check_units(trip)
        legs = member(trip, "legs", list)
        if len(legs) != 1:
            raise unreadable(f"a trip of {len(legs)} legs, not 1")
        try:
            places = decode_polyline(member(legs[0], "shape", str))
        except ValueError as error:
            raise unreadable(f"shape: {error}") from None
        if not len(places):
            raise unreadable("shape has no point")
        summary, lengths_m = member(legs[0], "summary", dict), step_lengths_m(places)
        times_s = _manoeuvred_s(legs[0].get("maneuvers", []), lengths_m)
        time_s, length_m = number(summary, "time"), number(summary, "length") * M_PER_KM
        return Way(places, spread(time_s, times_s if times_s.any() else lengths_m), spread(length_m, lengths_m))

    def _post(self, path: str, question: dict[str, Any]) -> Request:
        document = {**question, "costing": self._costing, "units": KILOMETRES}
        return Request(POST, path, json.dumps(document, separators=(",", ":")).encode())

    def _locations(self, places: Floats) -> list[dict[str, float]]:
        return [{"lat": round(lat, 6), "lon": round(lng, 6), "search_cutoff": self._cutoff_m} for lat, lng in places.tolist()]

    def _departing(self, depart_ms: int | None) -> dict[str, Any]:
        if self._zone is None or depart_ms is None:
            return {}
        local = datetime.fromtimestamp(depart_ms / MS_PER_S, self._zone)
        return {"date_time": {"type": DEPART_AT, "value": local.strftime("%Y-%m-%dT%H:%M")}}


class _NoPathError(Exception):
    """No way leads from any origin of the request to any destination."""


def _document(reply: Reply) -> Any:
    document = read_json(reply)
    if reply.status == 200:
        return document
    code = member(document, "error_code", int)
    if code == NO_PATH:
        raise _NoPathError(str(code))
    if code in FOR_ONE:
        raise AskForLess(str(code))
    raise EngineFault(Fault.REFUSED, f"error_code {code}")


def _check_units(document: Any) -> None:
    units = member(document, "units", str)
    if units != KILOMETRES:
        raise unreadable(f"units are {units[:20]!r}, not {KILOMETRES}")


def _edges(located: Any) -> list[list[Any]]:
    """Latitude and longitude of each edge that is near a place."""
    edges = located.get("edges") if isinstance(located, dict) else 0
    if edges is None:
        return []
    if not isinstance(edges, list) or not all(isinstance(edge, dict) for edge in edges):
        raise unreadable("locate: edges are no list of objects")
    return [[edge.get("correlated_lat"), edge.get("correlated_lon")] for edge in edges]


def _rows(answer: Any, n: int, m: int) -> dict[str, list[list[Any]]]:
    """The verbose form, one object a pair, as matrices."""
    if not isinstance(answer, list):
        raise unreadable("sources_to_targets is neither list nor object")
    pairs = [pair for row in answer for pair in (row if isinstance(row, list) else [row])]
    at = {(member(pair, "from_index", int), member(pair, "to_index", int)): pair for pair in pairs}
    if len(pairs) != n * m or set(at) != {(i, j) for i in range(n) for j in range(m)}:
        raise unreadable(f"sources_to_targets does not have each of {n} x {m} pairs once")
    return {
        key: [[at[i, j].get(name, "missing") for j in range(m)] for i in range(n)]
        for key, name in (("durations", "time"), ("distances", "distance"))
    }


def _manoeuvred_s(manoeuvres: Any, lengths_m: Floats) -> Floats:
    """Seconds of each step: float64[k - 1], all 0 where nothing is known of manoeuvres."""
    times_s = np.zeros(len(lengths_m))
    if not isinstance(manoeuvres, list):
        raise unreadable("maneuvers is no list")
    reached = 0
    for manoeuvre in manoeuvres:
        begin, end = member(manoeuvre, "begin_shape_index", int), member(manoeuvre, "end_shape_index", int)
        if begin != reached or not begin <= end <= len(lengths_m):
            raise unreadable("maneuvers do not follow each other along the shape")
        times_s[begin:end] = spread(number(manoeuvre, "time"), lengths_m[begin:end])
        reached = end
    if manoeuvres and reached != len(lengths_m):
        raise unreadable("maneuvers end before the shape does")
    return times_s
