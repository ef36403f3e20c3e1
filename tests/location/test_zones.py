"""Zones: the cover answers as plain shapely does, suggestions are allowed and none is much nearer, and gRPC says the same."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.cities import Zone, ZoneKind, load_city
from hexhail.kernel import geo
from hexhail.kernel.errors import Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.settings import Settings
from hexhail.rpc.tokens import Role
from location.servicer import RESOLVED_AT_ONCE
from location.zones import MAX_CELLS, Cover, ZoneParams, Zones, _shapes_of, cover_resolution
from tests.location.world import CITY, fix_message, refusal, state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hexhail.kernel.units import Bools, Floats
    from location.zones import Resolved
    from tests.location.world import World

DEGREE_M = math.radians(geo.EARTH_RADIUS_M)
MIDDLE = Place(40.5, -74.0)


def star(rng: np.random.Generator, middle: Place, radius_m: float, corners: int) -> shapely.Polygon:
    """A random polygon around a place, neither convex nor smooth."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) + np.linspace(0, 1e-6, corners)
    reach = rng.uniform(0.3, 1.0, corners) * radius_m / DEGREE_M
    lng = middle.lng + reach * np.cos(angles) / np.cos(np.radians(middle.lat))
    return shapely.Polygon(np.column_stack([lng, middle.lat + reach * np.sin(angles)]))


def with_a_hole(shape: Any) -> Any:
    """The shape without a smaller one like itself."""
    return shape.difference(shapely.affinity.scale(shape, 0.4, 0.4))


def around(
    rng: np.random.Generator, shapes: Sequence[shapely.Polygon | shapely.MultiPolygon], count: int
) -> tuple[Floats, Floats]:
    """Latitudes and longitudes of places: anywhere about the shapes, and on and very near their borders."""
    west, south, east, north = shapely.total_bounds(shapes)
    wide, high = (east - west) / 5, (north - south) / 5
    spots = [np.column_stack([rng.uniform(west - wide, east + wide, count), rng.uniform(south - high, north + high, count)])]
    for shape in shapes:
        corners = shapely.get_coordinates(shape)
        along = shapely.get_coordinates(shapely.line_interpolate_point(shape.boundary, rng.uniform(0, 1, count), normalized=True))
        for off in (0.0, 1e-9, 1e-7, 1e-5, 1e-3):
            spots += [corners + rng.normal(0, off, corners.shape), along + rng.normal(0, off, along.shape)]
    found = np.concatenate(spots)
    found = found[(np.abs(found[:, 0]) <= 180) & (np.abs(found[:, 1]) <= 90)]
    return found[:, 1].copy(), found[:, 0].copy()


def plain(shapes: Sequence[shapely.Geometry], lat: Floats, lng: Floats) -> Bools:
    """What shapely alone says, on shapes that nothing has prepared."""
    fresh = shapely.from_wkb(shapely.to_wkb(shapes))
    return np.column_stack([shapely.contains(shape, shapely.points(lng, lat)) for shape in fresh])


seeds = st.integers(0, 2**32 - 1)
middles = st.sampled_from(
    [
        MIDDLE,
        Place(0.0, 0.0),
        Place(-33.9, 151.2),
        Place(69.6, 18.9),
        Place(64.1, -21.9),
        Place(1.35, 103.8),
        Place(-16.8, 179.95),
    ]
)


@settings(max_examples=60)
@given(seed=seeds, middle=middles, resolution=st.integers(6, 11), parts=st.integers(1, 3))
def test_a_cover_answers_as_shapely_does_at_every_place(seed: int, middle: Place, resolution: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    edge_m = geo.circumradius_m(geo.cell_of(middle, resolution))
    shapes = []
    for _ in range(3):
        apart = rng.uniform(-8, 8, (parts, 2)) * edge_m / DEGREE_M
        stars = [
            star(rng, Place(middle.lat + north, middle.lng + east), rng.uniform(0.1, 6) * edge_m, int(rng.integers(3, 14)))
            for north, east in apart
        ]
        shape = with_a_hole(shapely.union_all([each for each in stars if each.is_valid]))
        if shape.area > 0:
            shapes.append(shape)
    shapes = [shape for shape in shapes if shape.bounds[2] <= 180]
    if not shapes:
        return
    lat, lng = around(rng, shapes, 60)
    cells = geo.cells_of(lat, lng, resolution)
    assert np.array_equal(Cover(shapes, resolution).contains(lat, lng, cells), plain(shapes, lat, lng))


def test_a_cover_asks_shapely_about_places_in_border_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    polygon = star(np.random.default_rng(7), MIDDLE, 6_000, 9)
    cover = Cover([polygon], 9)
    rng = np.random.default_rng(8)
    lat, lng = rng.uniform(40.4, 40.6, 20_000), rng.uniform(-74.1, -73.9, 20_000)
    expected = plain([polygon], lat, lng)
    asked: list[int] = []
    contains_xy = shapely.contains_xy

    def counting(shape: shapely.Polygon, x: Floats, y: Floats) -> Bools:
        asked.append(len(x))
        return contains_xy(shape, x, y)

    monkeypatch.setattr(shapely, "contains_xy", counting)
    contained = cover.contains(lat, lng, geo.cells_of(lat, lng, 9))
    assert np.array_equal(contained, expected)
    assert 0 < sum(asked) < 0.1 * len(lat)


@settings(max_examples=60)
@given(seed=seeds, middle=middles, resolution=st.integers(4, 12))
def test_every_place_lies_in_the_shape_by_which_its_cell_is_judged(seed: int, middle: Place, resolution: int) -> None:
    rng = np.random.default_rng(seed)
    cell = geo.cell_of(Place(middle.lat + rng.uniform(-1, 1), middle.lng + rng.uniform(-1, 0)), resolution)
    corners = [(corner.lat, corner.lng % 360) for corner in geo.boundary_of(cell)]
    edges = np.array([np.linspace(a, b, 50) for a, b in pairwise([*corners, corners[0]])]).reshape(-1, 2)
    edges[:, 1] = (edges[:, 1] + 180) % 360 - 180
    cells = geo.cells_of(edges[:, 0].copy(), edges[:, 1].copy(), resolution)
    shapes = dict(zip(cells.tolist(), _shapes_of(cells.tolist()), strict=True))
    assert all(
        shapely.contains_xy(shapes[cell], lng, lat) for cell, (lat, lng) in zip(cells.tolist(), edges.tolist(), strict=True)
    )


def test_a_cell_on_the_antimeridian_is_known_from_both_sides() -> None:
    east, west = shapely.box(-180, -16.9, -179.97, -16.8), shapely.box(179.97, -16.9, 180, -16.8)
    rng = np.random.default_rng(3)
    lat = rng.uniform(-16.92, -16.78, 4_000)
    lng = (rng.uniform(179.95, 180.05, 4_000) + 180) % 360 - 180
    shapes: list[shapely.Polygon | shapely.MultiPolygon] = [east, west, shapely.MultiPolygon([east, west])]
    assert np.array_equal(Cover(shapes, 8).contains(lat, lng, geo.cells_of(lat, lng, 8)), plain(shapes, lat, lng))


def test_a_cover_is_as_fine_as_the_index_unless_the_area_is_vast() -> None:
    assert cover_resolution(60e6, MIDDLE, 9) == 9
    assert cover_resolution(60e6, MIDDLE, 7) == 7
    count = len(Cover([shapely.box(-74.6, 40.1, -73.4, 41.0)], cover_resolution(1e10, MIDDLE, 9)).cells)
    assert MAX_CELLS / 10 < count < MAX_CELLS
    assert cover_resolution(1e15, MIDDLE, 12) >= 4


SIDE = 0.02
AREA = shapely.box(MIDDLE.lng - SIDE, MIDDLE.lat - SIDE, MIDDLE.lng + SIDE, MIDDLE.lat + SIDE)


def a_town(rng: np.random.Generator) -> tuple[shapely.Polygon, list[Zone]]:
    """A service area of some kilometres with overlapping zones of both kinds, some across its border, some with pickup points."""
    area = star(rng, MIDDLE, 3_000, 9)
    while not area.is_valid:
        area = star(rng, MIDDLE, 3_000, 9)
    zones: list[Zone] = []
    for number in range(int(rng.integers(0, 6))):
        place = Place(*(np.array([MIDDLE.lat, MIDDLE.lng]) + rng.uniform(-0.02, 0.02, 2)))
        shape = star(rng, place, rng.uniform(50, 1_500), int(rng.integers(3, 9)))
        if shape.is_valid and shape.area > 0:
            zones.append(Zone(f"z{number}", ZoneKind.NO_PICKUP if rng.random() < 0.7 else ZoneKind.NAMED, shape))
    lat, lng = rng.uniform(40.47, 40.53, 200), rng.uniform(-74.04, -73.96, 200)
    refused = shapely.union_all([zone.area for zone in zones if zone.kind is ZoneKind.NO_PICKUP])
    free = np.flatnonzero(plain([area.difference(refused)], lat, lng)[:, 0])
    for row, zone in enumerate(zones):
        if zone.kind is ZoneKind.NO_PICKUP and rng.random() < 0.4 and len(free) > 3:
            points = tuple(Place(lat.item(i), lng.item(i)) for i in rng.choice(free, 3).tolist())
            zones[row] = Zone(zone.zone_id, zone.kind, zone.area, points)
    return area, zones


def just_within(shape: shapely.Geometry, inset_m: float) -> Floats:
    """Places 3 m apart along the border of what lies deeper within a shape: float64[n, 2]. On a map of the test's own."""
    stretch = DEGREE_M * math.cos(math.radians(MIDDLE.lat)), DEGREE_M
    flat = shapely.buffer(shapely.transform(shape, lambda points: points * stretch), -inset_m, quad_segs=64)
    return (shapely.get_coordinates(shapely.segmentize(flat, 3.0)) / stretch)[:, ::-1]


@settings(max_examples=40)
@given(seed=seeds, reach_m=st.sampled_from([0.0, 200.0, 1_000.0]))
def test_whoever_may_not_be_picked_up_is_sent_to_the_nearest_place_where_it_may(seed: int, reach_m: float) -> None:
    rng = np.random.default_rng(seed)
    area, zones = a_town(rng)
    params = ZoneParams(reach_m=reach_m)
    resolving = Zones(area, zones, 9, params)
    shapes = [area, *(zone.area for zone in zones)]
    lat, lng = around(rng, shapes, 40)
    resolved = resolving.resolve(lat, lng)

    inside = plain(shapes, lat, lng)
    refuses = np.array([zone.kind is ZoneKind.NO_PICKUP for zone in zones], dtype=bool)
    assert np.array_equal(resolved.in_service_area, inside[:, 0])
    assert np.array_equal(resolved.membership, inside[:, 1:])
    allowed = inside[:, 0] & ~inside[:, 1:][:, refuses].any(axis=1)
    assert np.array_equal(resolved.pickup_allowed, allowed)

    suggested = resolved.suggested_pickup
    given_one: Bools = np.isfinite(suggested[:, 0])
    assert not given_one[allowed].any(), "nobody is sent away from where pickup is allowed"
    assert resolving.resolve(suggested[given_one, 0], suggested[given_one, 1]).pickup_allowed.all()
    metres = geo.distances_m(lat, lng, suggested[:, 0], suggested[:, 1])
    assert (metres[given_one & ~inside[:, 0]] <= reach_m).all()

    free = area.difference(shapely.union_all([zone.area for zone, no in zip(zones, refuses, strict=True) if no]))
    clear = just_within(free, params.inset_m + 0.1)
    for row in rng.permutation(np.flatnonzero(~allowed))[:60].tolist():
        own = [p for zone, there in zip(zones, inside[row, 1:], strict=True) if there for p in zone.pickup_points]
        choices = np.array([(p.lat, p.lng) for p in own]) if own else clear
        nearest_m = geo.distances_m(lat[row], lng[row], choices[:, 0], choices[:, 1]).min(initial=np.inf)
        if given_one[row]:
            assert metres[row] <= nearest_m * 1.001 + 0.2
            assert not own or metres[row] == nearest_m, "a zone's own pickup points come first"
        else:
            assert nearest_m > (np.inf if inside[row, 0] else reach_m * 0.999 - 0.2) or not len(clear)


def resolve_one(zones: Zones, lat: float, lng: float) -> Resolved:
    return zones.resolve(np.array([lat]), np.array([lng]))


def square(half_m: float, east_m: float = 0.0) -> shapely.Polygon:
    """A square about the middle, or east of it."""
    half, stretch = half_m / DEGREE_M, math.cos(math.radians(MIDDLE.lat))
    lng = MIDDLE.lng + east_m / DEGREE_M / stretch
    return shapely.box(lng - half / stretch, MIDDLE.lat - half, lng + half / stretch, MIDDLE.lat + half)


def test_a_suggestion_lies_just_outside_the_zone() -> None:
    zones = Zones(AREA, [Zone("square", ZoneKind.NO_PICKUP, square(100))], 9, ZoneParams(inset_m=5))
    east = MIDDLE.lng + 90 / DEGREE_M / math.cos(math.radians(MIDDLE.lat))
    resolved = resolve_one(zones, MIDDLE.lat, east)
    assert not resolved.pickup_allowed[0]
    assert geo.distances_m(MIDDLE.lat, east, *resolved.suggested_pickup[0]) == pytest.approx(15, abs=0.1)


def test_a_zone_inside_another_no_pickup_zone_is_left_by_both() -> None:
    both = [Zone("inner", ZoneKind.NO_PICKUP, square(50)), Zone("outer", ZoneKind.NO_PICKUP, square(300))]
    resolved = resolve_one(Zones(AREA, both, 9, ZoneParams()), MIDDLE.lat, MIDDLE.lng)
    assert geo.distances_m(MIDDLE.lat, MIDDLE.lng, *resolved.suggested_pickup[0]) == pytest.approx(305, abs=1)


def test_the_nearest_of_the_pickup_points_of_all_zones_that_hold_the_place_counts() -> None:
    near, nearer = Place(MIDDLE.lat, MIDDLE.lng + 0.012), Place(MIDDLE.lat, MIDDLE.lng - 0.009)
    zones = [
        Zone("a", ZoneKind.NO_PICKUP, square(500), (near,)),
        Zone("b", ZoneKind.NO_PICKUP, square(600), (Place(MIDDLE.lat + 0.015, MIDDLE.lng), nearer)),
        Zone("elsewhere", ZoneKind.NO_PICKUP, square(50, east_m=800), (Place(MIDDLE.lat + 0.0055, MIDDLE.lng),)),
    ]
    resolved = resolve_one(Zones(AREA, zones, 9, ZoneParams()), MIDDLE.lat, MIDDLE.lng)
    assert resolved.suggested_pickup[0].tolist() == [nearer.lat, nearer.lng]


def test_a_named_zone_forbids_nothing() -> None:
    resolved = resolve_one(Zones(AREA, [Zone("park", ZoneKind.NAMED, square(500))], 9, ZoneParams()), MIDDLE.lat, MIDDLE.lng)
    assert (resolved.membership.tolist(), resolved.pickup_allowed.tolist()) == ([[True]], [True])
    assert np.isnan(resolved.suggested_pickup).all()


def test_outside_the_service_area_the_nearest_place_counts_if_it_is_within_reach() -> None:
    zones = Zones(AREA, [], 9, ZoneParams(reach_m=1_000))
    north = MIDDLE.lat + SIDE
    near, far = (resolve_one(zones, north + metres / DEGREE_M, MIDDLE.lng) for metres in (990, 1_000))
    assert (near.pickup_allowed.tolist(), far.pickup_allowed.tolist()) == ([False], [False])
    assert near.suggested_pickup[0] == pytest.approx([north - 5 / DEGREE_M, MIDDLE.lng])
    assert np.isnan(far.suggested_pickup).all()


def test_where_no_place_is_left_none_is_suggested() -> None:
    resolved = resolve_one(Zones(AREA, [Zone("all", ZoneKind.NO_PICKUP, square(9_000))], 9, ZoneParams()), MIDDLE.lat, MIDDLE.lng)
    assert np.isnan(resolved.suggested_pickup).all()


def test_no_places_have_no_zones() -> None:
    nothing = np.empty(0)
    zones = Zones(AREA, [Zone("park", ZoneKind.NAMED, square(500))], 9, ZoneParams())
    assert zones.resolve(nothing, nothing).membership.shape == (0, 1)
    assert zones.zone_ids_of(nothing, nothing, np.empty(0, np.uint64)) == []


@pytest.mark.parametrize("index_resolution", [7, 9, 12])
def test_ids_come_in_the_order_of_the_citys_list(index_resolution: int) -> None:
    both = [Zone("wide", ZoneKind.NAMED, square(300)), Zone("a_narrow", ZoneKind.NO_PICKUP, square(100))]
    lat = np.array([MIDDLE.lat, MIDDLE.lat + 200 / DEGREE_M, MIDDLE.lat + 400 / DEGREE_M])
    lng = np.full(3, MIDDLE.lng)
    cells = geo.cells_of(lat, lng, index_resolution)
    zones = Zones(AREA, both, index_resolution, ZoneParams())
    assert zones.zone_ids_of(lat, lng, cells) == [("wide", "a_narrow"), ("wide",), ()]
    assert Zones(AREA, [], index_resolution, ZoneParams()).zone_ids_of(lat, lng, cells) == [(), (), ()]


@pytest.mark.parametrize(("name", "value"), [("inset_m", 0.0), ("inset_m", 101.0), ("reach_m", -1.0), ("reach_m", math.inf)])
def test_figures_that_cannot_be_meant_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ZoneParams(**{name: value})


def test_the_real_manhattan_is_covered_as_shapely_says(data_dir: Path) -> None:
    city = load_city("manhattan", Settings(data=data_dir))
    rng = np.random.default_rng(5)
    west, south, east, north = city.area.bounds
    lat, lng = rng.uniform(south, north, 10_000), rng.uniform(west, east, 10_000)
    resolved = Zones(city.area, city.zones, city.index_resolution, ZoneParams()).resolve(lat, lng)
    assert np.array_equal(resolved.in_service_area, city.covers(lat, lng))
    assert np.array_equal(resolved.membership, plain([zone.area for zone in city.zones], lat, lng))
    rows = np.flatnonzero(~np.isnan(resolved.suggested_pickup[:, 0]))
    assert len(rows) > 1_000
    assert city.covers(*resolved.suggested_pickup[rows].T).all()


TERMINAL, MARKET, NOWHERE = (40.489, -74.015), (40.505, -74.0045), (40.495, -74.000)


def asked(*places: tuple[float, float], city_id: str = CITY) -> pb.ResolveZonesRequest:
    return pb.ResolveZonesRequest(city_id=city_id, positions=[geo_pb2.LatLng(lat=lat, lng=lng) for lat, lng in places])


@pytest.mark.parametrize("role", list(Role))
async def test_anyone_may_ask_in_which_zones_places_lie(world: World, role: Role) -> None:
    call = world.stub.ResolveZones(
        asked(NOWHERE, TERMINAL, MARKET, (40.469, -74.0), (48.8, 2.3)), metadata=world.auth(role, "me")
    )
    nowhere, terminal, market, outside, abroad = (await call).resolved
    assert [list(each.zone_ids) for each in (nowhere, terminal, market, outside)] == [
        [],
        ["ferry_terminal"],
        ["market_square"],
        [],
    ]
    assert [each.in_service_area for each in (nowhere, terminal, market, outside, abroad)] == [True, True, True, False, False]
    assert [each.pickup_allowed for each in (nowhere, terminal, market, outside, abroad)] == [True, True, False, False, False]
    suggestions = [each.HasField("suggested_pickup") for each in (nowhere, terminal, market, outside, abroad)]
    assert suggestions == [False, False, True, True, False]
    sent = [(each.suggested_pickup.lat, each.suggested_pickup.lng) for each in (market, outside)]
    again = await world.stub.ResolveZones(asked(*sent), metadata=world.as_service)
    assert [each.pickup_allowed for each in again.resolved] == [True, True]


async def test_ten_thousand_places_are_answered_in_their_order(world: World) -> None:
    places = [NOWHERE, TERMINAL, MARKET, TERMINAL, (0.0, 0.0)] * 2_000
    assert len(places) > RESOLVED_AT_ONCE
    resolved = (await world.stub.ResolveZones(asked(*places), metadata=world.as_service)).resolved
    assert [tuple(each.zone_ids) for each in resolved] == [
        (),
        ("ferry_terminal",),
        ("market_square",),
        ("ferry_terminal",),
        (),
    ] * 2_000


LATE = [NOWHERE] * RESOLVED_AT_ONCE


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (asked(), Reason.INVALID_FIELD, "positions"),
        (asked(*[NOWHERE] * 10_001), Reason.INVALID_FIELD, "positions"),
        (asked(NOWHERE, (math.nan, 0)), Reason.INVALID_FIELD, "positions[1].lat"),
        (asked((0, math.inf)), Reason.INVALID_FIELD, "positions[0].lng"),
        (asked(*LATE, (90.5, 0)), Reason.INVALID_FIELD, f"positions[{len(LATE)}].lat"),
        (asked(NOWHERE, city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ],
)
async def test_a_bad_request_names_its_field(world: World, request_: pb.ResolveZonesRequest, reason: Reason, field: str) -> None:
    error = await refusal(world.stub.ResolveZones(request_, metadata=world.auth(Role.RIDER, "r1")))
    assert (error.reason, [violation.field for violation in error.violations]) == (reason, [field])


async def test_found_drivers_come_with_their_zones(world: World) -> None:
    places = {"d1": TERMINAL, "d2": MARKET, "d3": NOWHERE}
    await world.tell(*(state(name) for name in places))
    for name, place in places.items():
        await world.report(name, fix_message(1, *place))
    found = {each.position.driver_id: list(each.zone_ids) for each in (await world.nearby(NOWHERE)).drivers}
    assert found == {"d1": ["ferry_terminal"], "d2": ["market_square"], "d3": []}
