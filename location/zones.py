"""In which zones does a place lie, may riders be picked up there, and where else near by? Pure.

Polygons are looked up by H3 cell first: of every cell that touches one it is known whether the cell lies inside or on the
border, and only what lies in a border cell is asked of shapely. The answer equals shapely's `contains_xy` for every place; a
place exactly on a border is not inside.

The cells are those of the index, since it knows each driver's already. 10,000 places in Manhattan, resolution 9, against
prepared polygons alone: with the cells at hand 2 times as fast with 4 zones, 4 times with 20 or 100. Where cells must be found
first, as in `resolve`, that costs more than it saves until there are some 30 zones: 0.3 times as fast with 4, 0.75 with 20,
twice with 100. Resolutions 8 and 10 differ from 9 by less than a fifth.

A cell's edges are bent where degrees are drawn as a plane, by far less than GROWTH (a thousandth of it for the finest cells at 60
degrees of latitude), so every cell is judged as if it were larger by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

from hexhail.cities.model import ZoneKind
from hexhail.kernel import geo
from hexhail.kernel.geo import Place, Plane

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from hexhail.cities.model import Zone
    from hexhail.kernel.units import Bools, Cells, Floats

    Polygonal = shapely.Polygon | shapely.MultiPolygon
    Shapes = npt.NDArray[np.object_]

GROWTH: Final = 0.01
COARSEST_RESOLUTION: Final = 4
MAX_CELLS: Final = 20_000
OUTSIDE, BORDER, INSIDE = np.uint8(0), np.uint8(1), np.uint8(2)


@dataclass(frozen=True, slots=True)
class ZoneParams:
    """Where riders are sent who cannot be picked up where they are. Source: our choice.

    inset_m : a suggested pickup lies at least this far within what is allowed, so that rounding and a poor fix do not undo it;
        strips narrower than twice as much are never suggested. A city's own pickup points are taken as they are
    reach_m : places outside the service area get a suggestion at most this far away; places in a no-pickup zone get the nearest
    """

    inset_m: float = 5.0
    reach_m: float = 1_000.0

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 0.1 <= self.inset_m <= 100:
            raise ValueError("inset_m must be 0.1 to 100")
        if not 0 <= self.reach_m <= 50_000:
            raise ValueError("reach_m must be 0 to 50,000")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is known of some places.

    in_service_area : bool[n]
    membership : bool[n, n_zones], in the order of the city's list
    pickup_allowed : bool[n], in the service area and in no no-pickup zone
    suggested_pickup : float64[n, 2], latitude and longitude; NaN where none is needed or none is near enough
    """

    in_service_area: Bools
    membership: Bools
    pickup_allowed: Bools
    suggested_pickup: Floats


class Cover:
    """Some polygons by the cells that touch them.

    cells : uint64[n_cells + 1], ascending; the last is above all cells
    places : uint8[n_cells + 1, n_polygons]: OUTSIDE, BORDER or INSIDE
    """

    def __init__(self, polygons: Sequence[Polygonal], resolution: int) -> None:
        self.resolution = resolution
        self._polygons = polygons
        touching = [_cells_touching(polygon, resolution) for polygon in polygons]
        self.cells = np.append(
            np.unique(np.concatenate([np.empty(0, np.uint64), *(cells for cells, _ in touching)])), ~np.uint64(0)
        )
        self.places = np.full((len(self.cells), len(polygons)), OUTSIDE)
        for column, (cells, inside) in enumerate(touching):
            self.places[np.searchsorted(self.cells, cells), column] = np.where(inside, INSIDE, BORDER)

    def contains(self, lat: Floats, lng: Floats, cells: Cells) -> Bools:
        """Which polygons contain each place? `cells` are the places' own: uint64[n]. Returns bool[n, n_polygons]."""
        contained = np.zeros((len(cells), len(self._polygons)), dtype=np.bool_)
        found = np.searchsorted(self.cells, cells)
        touching = np.flatnonzero(self.cells[found] == cells)
        if len(touching):
            places = self.places[found[touching]]
            contained[touching] = places == INSIDE
            border = places == BORDER
            for column in np.flatnonzero(border.any(axis=0)).tolist():
                asked = touching[border[:, column]]
                contained[asked, column] = shapely.contains_xy(self._polygons[column], lng[asked], lat[asked])
        return contained


class Zones:
    """The zones of one city, and its service area."""

    def __init__(self, area: Polygonal, zones: Sequence[Zone], index_resolution: int, params: ZoneParams) -> None:
        self.zone_ids = tuple(zone.zone_id for zone in zones)
        west, south, east, north = area.bounds
        self._plane = Plane(Place((south + north) / 2, (west + east) / 2))
        self._reach_m = params.reach_m
        self._area = Cover([area], cover_resolution(self._flat(area).area, self._plane.middle, index_resolution))
        self._zones = Cover([zone.area for zone in zones], index_resolution)
        refusing = [zone for zone in zones if zone.kind is ZoneKind.NO_PICKUP]
        self._refuses = np.array([zone.kind is ZoneKind.NO_PICKUP for zone in zones], dtype=np.bool_)
        self._points = np.array([(p.lat, p.lng) for zone in zones for p in zone.pickup_points], dtype=np.float64).reshape(-1, 2)
        self._owners = np.repeat(np.arange(len(zones)), [len(zone.pickup_points) for zone in zones])
        refused = shapely.union_all([self._flat(zone.area).buffer(params.inset_m) for zone in refusing])
        self._edges = _edges_of(self._flat(area).buffer(-params.inset_m).difference(refused))
        self._nearest_edges = shapely.STRtree(self._edges)

    def resolve(self, lat: Floats, lng: Floats) -> Resolved:
        """What is known of these places? float64[n], float64[n], degrees, finite and on the globe."""
        cells = geo.cells_of(lat, lng, self._zones.resolution)
        coarse = self._area.resolution != self._zones.resolution
        in_service_area = self._area.contains(lat, lng, geo.cells_of(lat, lng, self._area.resolution) if coarse else cells)[:, 0]
        membership = self._zones.contains(lat, lng, cells)
        allowed = in_service_area & ~membership[:, self._refuses].any(axis=1)
        suggested = np.full((len(lat), 2), np.nan)
        rows = np.flatnonzero(~allowed)
        if len(rows):
            suggested[rows] = self._suggest(lat[rows], lng[rows], in_service_area[rows], membership[rows])
        return Resolved(in_service_area, membership, allowed, suggested)

    def zone_ids_of(self, lat: Floats, lng: Floats, cells: Cells) -> list[tuple[str, ...]]:
        """In which zones does each place lie? Zones in the order of the city's list.

        lat, lng : float64[n], degrees
        cells : uint64[n], the places' cells of the index resolution, as the index knows them already
        """
        if not self.zone_ids:
            return [()] * len(lat)
        return self.names(self._zones.contains(lat, lng, cells))

    def names(self, membership: Bools) -> list[tuple[str, ...]]:
        """The ids of the zones of each row: bool[n, n_zones]."""
        names: list[tuple[str, ...]] = [()] * len(membership)
        for row, zone in zip(*(each.tolist() for each in np.nonzero(membership)), strict=True):
            names[row] += (self.zone_ids[zone],)
        return names

    def _suggest(self, lat: Floats, lng: Floats, in_service_area: Bools, membership: Bools) -> Floats:
        suggested = self._pickup_points(lat, lng, membership)
        rows = np.flatnonzero(np.isnan(suggested[:, 0]))
        suggested[rows] = self._nearest_within(lat[rows], lng[rows])
        far = geo.distances_m(lat, lng, suggested[:, 0], suggested[:, 1]) > self._reach_m
        suggested[far & ~in_service_area] = np.nan
        return suggested

    def _pickup_points(self, lat: Floats, lng: Floats, membership: Bools) -> Floats:
        """The nearest pickup point of the zones in which each place lies; NaN where they have none."""
        suggested = np.full((len(lat), 2), np.nan)
        mine = membership[:, self._owners]
        rows = np.flatnonzero(mine.any(axis=1))
        if len(rows):
            metres = geo.distances_m(lat[rows, None], lng[rows, None], self._points[:, 0], self._points[:, 1])
            suggested[rows] = self._points[np.argmin(np.where(mine[rows], metres, np.inf), axis=1)]
        return suggested

    def _nearest_within(self, lat: Floats, lng: Floats) -> Floats:
        """The nearest place that lies within what is allowed by the inset; NaN where there is none at all."""
        suggested = np.full((len(lat), 2), np.nan)
        places = np.asarray(shapely.points(*self._plane.flatten(lat, lng)))
        rows, edges = self._nearest_edges.query_nearest(places, all_matches=False)
        lines = shapely.shortest_line(places[rows], self._edges[edges])
        ends = shapely.get_coordinates(lines).reshape(-1, 2, 2)[:, 1]
        suggested[rows] = np.column_stack(self._plane.unflatten(ends[:, 0], ends[:, 1]))
        return suggested

    def _flat(self, polygon: Polygonal) -> Polygonal:
        def flatten(points: Floats) -> Floats:
            return np.column_stack(self._plane.flatten(points[:, 1], points[:, 0]))

        return shapely.transform(polygon, flatten)


def cover_resolution(area_m2: float, middle: Place, index_resolution: int) -> int:
    """How fine are the cells that cover a service area of this size?

    As fine as the index, or coarser where that would take more than about MAX_CELLS cells (a second at the start).
    """
    resolution = index_resolution
    while resolution > COARSEST_RESOLUTION:
        radius_m = geo.circumradius_m(geo.cell_of(middle, resolution))
        if area_m2 <= MAX_CELLS * 1.5 * 3**0.5 * radius_m**2:
            break
        resolution -= 1
    return resolution


def _edges_of(shape: shapely.Geometry) -> Shapes:
    """The edges of all rings, one line each."""
    rings = shapely.get_rings(shapely.get_parts(shape))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    begins = np.flatnonzero(ring[1:] == ring[:-1])
    return np.asarray(shapely.linestrings(np.stack([points[begins], points[begins + 1]], axis=1)))


def _cells_touching(polygon: Polygonal, resolution: int) -> tuple[Cells, Bools]:
    """The cells that touch a polygon, uint64[n], and whether each lies inside, bool[n]. Spreads from cell to cell."""
    shapely.prepare(polygon)
    corners = [shapely.get_coordinates(part)[0] for part in shapely.get_parts(polygon)]
    frontier = {geo.cell_of(Place(float(lat), float(lng)), resolution) for lng, lat in corners}
    seen: set[int] = set()
    found: list[int] = []
    inside: list[bool] = []
    while frontier:
        seen |= frontier
        cells = sorted(frontier)
        shapes = _shapes_of(cells)
        touches = shapely.intersects(polygon, shapes)
        touching = [cells[row] for row in np.flatnonzero(touches).tolist()]
        found += touching
        inside += shapely.contains_properly(polygon, shapes[touches]).tolist()
        frontier = {beside for cell in touching for beside in geo.disk(cell, 1)} - seen
    return np.array(found, dtype=np.uint64), np.array(inside, dtype=np.bool_)


def _shapes_of(cells: Sequence[int]) -> Shapes:
    """Each cell, grown about its middle, in degrees. One on the antimeridian is drawn at both ends of the map."""
    corners = [geo.boundary_of(cell) for cell in cells]
    counts = np.array([len(each) for each in corners])
    cell_rows = np.repeat(np.arange(len(cells)), counts)
    begins = np.cumsum(counts) - counts
    points = np.array([(corner.lng, corner.lat) for each in corners for corner in each])
    lng = points[:, 0]
    wraps = np.maximum.reduceat(lng, begins) - np.minimum.reduceat(lng, begins) > 180
    points[:, 0] = np.where(wraps[cell_rows], lng % 360, lng)
    middles = (np.add.reduceat(points, begins) / counts[:, None])[cell_rows]
    shapes: Shapes = shapely.polygons(shapely.linearrings(middles + (points - middles) * (1 + GROWTH), indices=cell_rows))
    for row in np.flatnonzero(wraps).tolist():
        shapes[row] = shapely.MultiPolygon([shapes[row], shapely.transform(shapes[row], lambda points: points - (360, 0))])
    return shapes
