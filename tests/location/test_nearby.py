"""Who is near: the case table against the pure selection and through gRPC, and the laws of the search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel import geo
from hexhail.kernel.geo import Place
from location.model import RECORD, Availability, IndexedDrivers, LeftOutReason, NearbyQuestion, Occupancy
from location.nearby import NearbyParams, Surroundings, left_out, neighbourhood_of, plan_reading, select
from location.records import pack_states
from tests.location.world import CENTRE, LIMIT_MS, NOON_MS, fix_message, fix_row, gridport, packed, state

if TYPE_CHECKING:
    from tests.location.world import World

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "specs" / "nearby.json").read_text())["cases"]
CITY = gridport()


def said_of(driver: dict[str, Any]) -> Any:
    name = driver.get("availability", "AVAILABLE")
    if name is None:
        return None
    mask = CITY.capability_mask(driver.get("capabilities", ["economy"]))
    return state(driver["id"], Availability[name], mask=mask, rating=driver.get("rating_milli", 4_500))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_case_holds_for_the_pure_selection(case: dict[str, Any]) -> None:
    ask = case["ask"]
    question = NearbyQuestion(
        place=Place(*CENTRE),
        max_drivers=ask.get("max_drivers", 10),
        radius_m=ask.get("radius_m", 5_000.0),
        capability_mask=CITY.capability_mask(ask.get("capabilities", [])),
        min_rating_milli=ask.get("min_rating_milli", 0),
        excluded_driver_ids=frozenset(ask.get("excluded_driver_ids", [])),
        max_age_ms=min(ask.get("max_age_ms", LIMIT_MS), LIMIT_MS),
    )
    # whom matching does not know is never indexed: the store's contract says so
    known = [driver for driver in case["drivers"] if said_of(driver) is not None]
    rows = [fix_row(d["lat"], d["lng"], at_ms=NOON_MS - d.get("age_ms", 0)) for d in known]
    fixes = np.concatenate(rows) if rows else fix_row(*CENTRE)[:0]
    records = np.zeros(len(known), dtype=RECORD)
    records["position"] = packed(fixes)
    if known:
        records["state"] = pack_states([said_of(driver) for driver in known])
    drivers = IndexedDrivers([d["id"].encode() for d in known], records)
    found, distance_mm = select(drivers, question, NOON_MS)
    assert [driver_id.decode() for driver_id in found.driver_ids][: question.max_drivers] == case["found"]
    assert (np.diff(distance_mm) >= 0).all()


def near(*drivers: tuple[str, float, int, dict[str, Any]]) -> IndexedDrivers:
    """Drivers so far north of the middle, whose fix is so old, with a state of their own."""
    rows = [fix_row(CENTRE[0] + north_deg, CENTRE[1], at_ms=NOON_MS - age_ms) for _, north_deg, age_ms, _ in drivers]
    records = np.zeros(len(drivers), dtype=RECORD)
    records["position"] = packed(np.concatenate(rows))
    records["state"] = pack_states([said_of({"id": name, **said}) for name, _, _, said in drivers])
    return IndexedDrivers([name.encode() for name, _, _, _ in drivers], records)


def test_whoever_is_near_and_no_answer_is_told_with_the_reason_nearest_first() -> None:
    drivers = near(
        ("answer", 0.001, 0, {}),
        ("stale", 0.004, LIMIT_MS + 1, {"capabilities": ["xl"]}),
        ("able_to_do_else", 0.003, 0, {"capabilities": ["xl"]}),
        ("low", 0.002, 0, {"rating_milli": 100}),
        ("excluded", 0.0025, 0, {}),
        ("on_ride", 0.001, LIMIT_MS + 1, {"availability": "ON_RIDE"}),
        ("beyond", 0.02, LIMIT_MS + 1, {}),
    )
    mask = CITY.capability_mask(["economy"])
    question = NearbyQuestion(Place(*CENTRE), 10, 5_000.0, mask, 1_000, frozenset({"excluded"}), LIMIT_MS, max_left_out=3)
    told = left_out(drivers, question, 1_000_000, NOON_MS)
    assert [(each.driver_id, each.reason) for each in told] == [
        ("low", LeftOutReason.RATED_TOO_LOW),
        ("excluded", LeftOutReason.EXCLUDED),
        ("able_to_do_else", LeftOutReason.WRONG_CLASS),
    ]
    everybody = left_out(drivers, replace(question, max_left_out=100), 1_000_000, NOON_MS)
    assert [(each.driver_id, each.reason) for each in everybody[3:]] == [("stale", LeftOutReason.STALE)]
    assert left_out(drivers, replace(question, max_left_out=0), 1_000_000, NOON_MS) == ()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_each_case_holds_through_grpc(world: World, case: dict[str, Any]) -> None:
    await world.tell(*(said for driver in case["drivers"] if (said := said_of(driver)) is not None))
    for driver in sorted(case["drivers"], key=lambda driver: -driver.get("age_ms", 0)):
        world.clock.advance(max(0, NOON_MS + 60_000 - driver.get("age_ms", 0) - world.clock.now_ms()))
        await world.report(driver["id"], fix_message(1, driver["lat"], driver["lng"]))
    world.clock.advance(NOON_MS + 60_000 - world.clock.now_ms())
    assert await world.names_nearby(**case["ask"]) == case["found"]


offsets = st.floats(-0.05, 0.05)


anywhere = st.tuples(st.floats(-80, 80), st.floats(-179, 179))


@settings(max_examples=200, deadline=None)
@given(
    middle=st.one_of(st.just(CENTRE), anywhere),
    here=st.tuples(offsets, offsets),
    there=st.tuples(offsets, offsets),
    rings=st.integers(0, 5),
    resolution=st.sampled_from([7, 8, 9]),
)
def test_no_point_of_a_cell_is_nearer_than_its_bound(
    middle: tuple[float, float], here: tuple[float, float], there: tuple[float, float], rings: int, resolution: int
) -> None:
    """Everywhere on Earth: at high latitudes, across the edges of H3's faces, beside pentagons."""
    place, other = (Place(middle[0] + a, middle[1] + b) for a, b in (here, there))
    around = neighbourhood_of(geo.cell_of(place, resolution), rings)
    nearest_m = around.nearest_m(place)
    cell = geo.cell_of(other, resolution)
    bound_m = nearest_m[around.cells.index(cell)] if cell in around.cells else nearest_m[around.within :].min()
    assert geo.distance_m(place, other) >= bound_m


@settings(max_examples=50, deadline=None)
@given(
    here=st.tuples(offsets, offsets),
    others=st.lists(st.tuples(offsets, offsets), min_size=1, max_size=20),
    reach_m=st.floats(0, 60_000),
    max_rings=st.integers(0, 6),
)
def test_a_reading_leaves_out_no_cell_within_its_reach(
    here: tuple[float, float], others: list[tuple[float, float]], reach_m: float, max_rings: int
) -> None:
    place = Place(CENTRE[0] + here[0], CENTRE[1] + here[1])
    drivers = [Place(CENTRE[0] + a, CENTRE[1] + b) for a, b in others]
    cells, counts = np.unique(np.array([geo.cell_of(driver, 9) for driver in drivers], dtype=np.uint64), return_counts=True)
    surroundings = Surroundings(Occupancy(cells, counts))
    reading = plan_reading(place, 9, reach_m, surroundings, NearbyParams(max_rings=max_rings))
    assert reading.certain_m >= reach_m
    for driver in drivers:
        is_read = (geo.cell_of(driver, 9) in reading.cells) != reading.all_but
        assert is_read or geo.distance_m(place, driver) >= reading.certain_m


async def test_a_sparse_suburb_is_searched_by_its_occupied_cells(world: World) -> None:
    """50 drivers over 400 km2: one reading of occupied cells, not thousands of empty ones."""
    rng = np.random.default_rng(5)
    spots = np.array(CENTRE) + rng.uniform(-0.09, 0.09, (50, 2)) * [1, 1.3]
    await world.location.store.write_states([state(f"s{row}") for row in range(50)])
    fixes = np.concatenate([fix_row(lat, lng) for lat, lng in spots.tolist()])
    await world.location.store.write_fixes([f"s{row}" for row in range(50)], packed(fixes))
    question = NearbyQuestion(Place(*CENTRE), 10, 20_000.0, 0, 0, frozenset(), LIMIT_MS)
    answer = await world.location.finder.find(question)
    assert len(answer.distance_mm) == 10
    assert world.location.metrics.nearby_readings <= 2
