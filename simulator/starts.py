"""Where the drivers are when a demo begins."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from simulator.requests import RequestsFileError, ride_rows

if TYPE_CHECKING:
    from datetime import time
    from pathlib import Path

    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph
    from routing.model import Router

JITTER_M = 20.0


def load_ride_ends(path: Path, start_local: time) -> Floats:
    """Where did the rides of a file end before this time of day? float64[n, 2], lat and lng in degrees.

    A file that tells no ends of rides (a list of requests) gives the destinations of the requests made before; where none was
    made before, of all. Places that are not on the globe, or zero, are left out.

    Raises RequestsFileError as `ride_rows`, and where nothing is left.
    """
    rows = list(ride_rows(path, Counter()))
    day = rows[0].at_local.date()
    tells_ends = any(not row.begins for row in rows)
    rows = [row for row in rows if row.begins != tells_ends]
    before = [row for row in rows if (row.at_local.date(), row.at_local.time()) < (day, start_local)]
    places = np.array([row.dropoff for row in before or rows])
    usable = (places != 0).all(axis=1) & (np.abs(places) <= (90.0, 180.0)).all(axis=1)
    if not usable.any():
        raise RequestsFileError(path, "tells of no place where a ride ended")
    return np.asarray(places[usable], dtype=np.float64)


def starts_near(places: Floats, count: int, seed: int, router: Router) -> Floats:
    """Where do `count` drivers start, near places such as these? float64[count, 2], each covered by the router.

    Drawn by seed, no place twice before all were used; up to 20 m away, so that no two drivers stand in one spot. A start that
    would leave the network stays at its place.

    Raises ValueError where the router covers none of the places.
    """
    rng = generator(seed, "driver-starts")
    covered = places[router.covers(places)]
    if count and not len(covered):
        raise ValueError("none of the places is on the road network")
    rounds = -(-count // len(covered)) if count else 0
    drawn = [rng.permutation(len(covered)) for _ in range(rounds)]
    at = covered[np.concatenate(drawn)[:count]] if drawn else np.empty((0, 2))
    moved = _moved(at, rng.uniform(-JITTER_M, JITTER_M, (2, count)))
    return np.where(router.covers(moved)[:, None], moved, at)


def starts_on_streets(graph: RoadGraph, count: int, seed: int) -> Floats:
    """Where do `count` drivers start, evenly along all streets? float64[count, 2], lat and lng in degrees."""
    return on_streets(graph, count, generator(seed, "driver-starts"))


def on_streets(graph: RoadGraph, count: int, rng: np.random.Generator) -> Floats:
    """Some places on the streets, evenly by length, straight between junctions: float64[count, 2], degrees."""
    tail = graph.tail()
    edges = rng.choice(graph.n_edges, size=count, p=graph.length_m / graph.length_m.sum())
    along = rng.random((count, 1))
    nodes = graph.places()
    return np.asarray(nodes[tail[edges]] * (1 - along) + nodes[graph.head[edges]] * along, dtype=np.float64)


def _moved(places: Floats, by_m: Floats) -> Floats:
    degrees = np.degrees(by_m / geo.EARTH_RADIUS_M)
    stretch = np.cos(np.radians(places[:, 0])) if len(places) else 1.0
    return np.asarray(places + np.column_stack((degrees[0], degrees[1] / stretch)), dtype=np.float64)
