"""How OSRM is asked, and what its replies mean.

Source: Project-OSRM/osrm-backend, docs/http.md (HTTP API version 1: general options and codes, the services nearest, route and
table, the objects Waypoint, RouteLeg and Annotation); that --max-table-size squared limits the pairs of a table:
src/engine/plugins/table.cpp. OSRM knows no departure time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from routing.engine_params import version_of
from routing.engine_replies import (
    GET,
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
    numbers,
    read_json,
    spread,
    step_lengths_m,
    unreadable,
)
from routing.polyline import decode_polyline

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.engine_params import OsrmParams
    from routing.engine_replies import Reply

OK = "Ok"
FOR_ONE = {"NoSegment", "NoTable", "NoRoute"}
"""Codes that speak of a place or a pair in the request, not of the request."""


class OsrmDialect:
    """A `Dialect`. Tables and routes tell how far each coordinate was moved (`waypoints[].distance`)."""

    hears_departure = False
    gaps_first = False

    def __init__(self, params: OsrmParams) -> None:
        self._profile = params.profile
        self.max_side = params.max_table_size
        self.max_pairs = params.max_table_size**2
        self.max_places = params.max_table_size
        self.version = version_of("osrm", params, params.profile)

    def ask_gaps(self, places: Floats) -> Request:
        """One place: what is nearest? Several: a table to the first of them, whose waypoints tell the same."""
        if len(places) == 1:
            return Request(GET, f"/nearest/v1/{self._profile}/{_path(places)}?number=1&generate_hints=false")
        return self._table(places, "destinations=0&annotations=duration")

    def read_gaps(self, reply: Reply, places: Floats) -> Gaps:
        """What does it say?"""
        document = _document(reply)
        key = "waypoints" if len(places) == 1 else "sources"
        return Gaps(_gaps_m(document, key, len(places)), _data(document))

    def ask_table(self, origins: Floats, destinations: Floats, depart_ms: int | None) -> Request:  # noqa: ARG002
        """Durations and distances of the fastest ways."""
        n, m = len(origins), len(destinations)
        sources, targets = ";".join(map(str, range(n))), ";".join(map(str, range(n, n + m)))
        options = f"sources={sources}&destinations={targets}&annotations=duration,distance"
        return self._table(np.concatenate((origins, destinations)), options)

    def read_table(self, reply: Reply, origins: Floats, destinations: Floats) -> Table:
        """What does it say?"""
        document = _document(reply)
        n, m = len(origins), len(destinations)
        times_s = cells(document.get("durations"), n, m, "durations")
        distances_m = cells(document.get("distances"), n, m, "distances")
        if (np.isinf(times_s) != np.isinf(distances_m)).any():
            raise unreadable("durations and distances do not have their nulls in the same places")
        gaps = _gaps_m(document, "sources", n), _gaps_m(document, "destinations", m)
        return Table(times_s, distances_m, *gaps, _data(document))

    def ask_way(self, ends: Floats, depart_ms: int) -> Request:  # noqa: ARG002
        """The whole geometry, with what each of its steps takes."""
        options = "overview=full&geometries=polyline6&annotations=duration,distance&steps=false&generate_hints=false"
        return Request(GET, f"/route/v1/{self._profile}/{_path(ends)}?{options}")

    def read_way(self, reply: Reply, ends: Floats) -> Way:
        """What does it say? Annotations leave out the time of turns: they deal out the leg's whole duration."""
        document = _document(reply)
        routes = member(document, "routes", list)
        legs = member(routes[0] if routes else None, "legs", list)
        if len(legs) != 1:
            raise unreadable(f"a route of {len(legs)} legs, not 1")
        try:
            places = decode_polyline(member(routes[0], "geometry", str))
        except ValueError as error:
            raise unreadable(f"geometry: {error}") from None
        if not len(places):
            raise unreadable("geometry has no point")
        annotation, k = member(legs[0], "annotation", dict), len(places) - 1
        times_s = numbers(annotation.get("duration"), k, "annotation.duration")
        lengths_m = numbers(annotation.get("distance"), k, "annotation.distance")
        duration_s, length_m = number(legs[0], "duration"), number(legs[0], "distance")
        return Way(
            places,
            spread(duration_s, times_s if times_s.any() else step_lengths_m(places)),
            spread(length_m, lengths_m),
            _gaps_m(document, "waypoints", len(ends)),
            _data(document),
        )

    def _table(self, places: Floats, options: str) -> Request:
        return Request(GET, f"/table/v1/{self._profile}/{_path(places)}?{options}&generate_hints=false")


def _path(places: Floats) -> str:
    """Longitude first, with six decimals, some 10 cm."""
    return ";".join(f"{lng:.6f},{lat:.6f}" for lat, lng in places.tolist())


def _document(reply: Reply) -> dict[str, Any]:
    document = read_json(reply)
    code = member(document, "code", str)
    if code == OK and reply.status == 200:
        return dict(document)
    if code in FOR_ONE:
        raise AskForLess(code)
    if code == OK:
        raise unreadable(f"HTTP {reply.status} and code {OK}")
    raise EngineFault(Fault.REFUSED, code[:40])


def _gaps_m(document: dict[str, Any], key: str, n: int) -> Floats:
    waypoints = member(document, key, list)
    if len(waypoints) != n:
        raise unreadable(f"{key} has {len(waypoints)} waypoints, not {n}")
    distances = [waypoint.get("distance") if isinstance(waypoint, dict) else None for waypoint in waypoints]
    return numbers(distances, n, f"{key}: distance")


def _data(document: dict[str, Any]) -> str:
    data = document.get("data_version", "")
    return data if isinstance(data, str) else ""
