"""A street grid made from a seed: a city for tests and demos that needs no data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from routing.graph import RoadGraph, graph_of_edges

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats


@dataclass(frozen=True, slots=True)
class GridParams:
    """The shape of the grid. Raises ValueError naming the field.

    rows, columns : junctions from south to north and from west to east, 2 or more each
    block_m : between neighbouring junctions, before jitter
    speed_kmh, avenue_speed_kmh : on an ordinary street and on an avenue
    avenue_every : each such street, counted from the south and the west, is an avenue
    one_way_share : of the streets that are neither avenues nor the outermost
    jitter : how far a junction strays from its place, in blocks, 0 to 0.3
    """

    south_west_lat: float
    south_west_lng: float
    rows: int = 31
    columns: int = 31
    block_m: float = 100.0
    speed_kmh: float = 30.0
    avenue_speed_kmh: float = 50.0
    avenue_every: int = 5
    one_way_share: float = 0.5
    jitter: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, float, float], ...] = (
            ("south_west_lat", -80.0, 80.0),
            ("south_west_lng", -180.0, 180.0),
            ("rows", 2, 1000),
            ("columns", 2, 1000),
            ("block_m", 1.0, 10_000.0),
            ("speed_kmh", 1.0, 200.0),
            ("avenue_speed_kmh", 1.0, 200.0),
            ("avenue_every", 1, 1000),
            ("one_way_share", 0.0, 1.0),
            ("jitter", 0.0, 0.3),
            ("seed", 0, 2**63),
        )
        for name, low, high in limits:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, not between {low:g} and {high:g}")


def grid_graph(params: GridParams) -> RoadGraph:
    """The grid as a road graph, always strongly connected: the outermost streets lead both ways, and every other street
    runs from one of them to another. Equal parameters give equal graphs.
    """
    rng = generator(params.seed, "street-grid")
    rows, columns = params.rows, params.columns
    lat, lng = _junctions(params, rng)
    numbers = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    tails, heads, speeds = [], [], []
    for streets in (numbers, numbers.T):
        for index, street in enumerate(streets):
            avenue = index % params.avenue_every == 0
            outermost = index in (0, len(streets) - 1)
            draws = rng.random(2)
            one_way = not (avenue or outermost) and draws[0] < params.one_way_share
            forth, back = not one_way or draws[1] < 0.5, not one_way or draws[1] >= 0.5
            for line in [street] * int(forth) + [street[::-1]] * int(back):
                tails.append(line[:-1])
                heads.append(line[1:])
                speeds.append(np.full(len(line) - 1, params.avenue_speed_kmh if avenue else params.speed_kmh))
    tail, head = np.concatenate(tails), np.concatenate(heads)
    length_m = geo.distances_m(lat[tail], lng[tail], lat[head], lng[head])
    return graph_of_edges(lat, lng, tail=tail, head=head, length_m=length_m, time_s=length_m / (np.concatenate(speeds) / 3.6))


def _junctions(params: GridParams, rng: np.random.Generator) -> tuple[Floats, Floats]:
    shape = (params.rows, params.columns)
    north, east = np.indices(shape) + rng.uniform(-params.jitter, params.jitter, (2, *shape))
    degrees = math.degrees(params.block_m / geo.EARTH_RADIUS_M)
    lat = params.south_west_lat + north.ravel() * degrees
    lng = params.south_west_lng + east.ravel() * degrees / math.cos(math.radians(params.south_west_lat))
    return lat, lng
