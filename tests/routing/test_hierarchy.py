"""The hierarchy's cache: made once, whatever the traffic, shared, repaired; and what it cannot carry."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from routing import hierarchy as under_test
from routing.city import router_for
from routing.grid import GridParams, grid_graph
from routing.hierarchy import SEAL, HierarchyRouter, build_hierarchy, load_hierarchy
from routing.joining import RoadParams
from routing.road import RoadRouter

if TYPE_CHECKING:
    from pathlib import Path

    from routing.hierarchy import Hierarchy
    from routing.model import Floats32

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=7, columns=8, jitter=0.2))
SLOWER = GRAPH.slowed(np.linspace(1.0, 3.0, GRAPH.n_edges))
PLACES = GRAPH.places()


def times_s(hierarchy: Hierarchy) -> Floats32:
    return HierarchyRouter(GRAPH, hierarchy, RoadParams()).times_s(PLACES, PLACES, 0)


def test_a_kept_hierarchy_answers_as_the_one_that_was_made(tmp_path: Path) -> None:
    expected = times_s(build_hierarchy(GRAPH))

    for _ in range(2):
        np.testing.assert_array_equal(times_s(load_hierarchy(GRAPH, tmp_path / "new")), expected)
    assert not list((tmp_path / "new").glob("*.part"))


def test_all_states_of_the_traffic_share_what_the_first_to_ask_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_hierarchy(GRAPH, tmp_path)
    monkeypatch.delattr(under_test, "build_hierarchy")

    load_hierarchy(SLOWER, tmp_path)


def test_other_streets_have_a_hierarchy_of_their_own(tmp_path: Path) -> None:
    load_hierarchy(GRAPH, tmp_path)
    load_hierarchy(replace(GRAPH, lat=GRAPH.lat + 0.01), tmp_path)

    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("name", ["head", "order", "rank", "tail", "node_count", SEAL])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_whatever_is_damaged_is_made_anew(tmp_path: Path, name: str, damage: str) -> None:
    load_hierarchy(GRAPH, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    whole = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(whole[:-2] if damage == "cut" else b"\xff\xff" + whole[2:])

    np.testing.assert_array_equal(times_s(load_hierarchy(GRAPH, tmp_path)), times_s(build_hierarchy(GRAPH)))
    assert (folder / name).read_bytes() == whole


def test_another_version_s_hierarchy_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_hierarchy(GRAPH, tmp_path)
    (seal,) = tmp_path.glob(f"*/{SEAL}")
    before = seal.read_bytes()
    monkeypatch.setattr(under_test, "version", lambda _: "another")

    load_hierarchy(GRAPH, tmp_path)

    assert seal.read_bytes() != before


def test_what_was_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    load_hierarchy(GRAPH, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    left = tmp_path / f"{folder.name}abc.part"
    left.mkdir()
    (left / "order").write_bytes(b"half")

    load_hierarchy(GRAPH, tmp_path)

    assert not left.exists()


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    load_hierarchy(GRAPH, None)

    assert not list(tmp_path.iterdir())


def test_a_hierarchy_of_other_streets_is_refused() -> None:
    with pytest.raises(ValueError, match="hierarchy"):
        HierarchyRouter(GRAPH, build_hierarchy(grid_graph(GridParams(40.5, -74.0, rows=3, columns=3))), RoadParams())


def test_an_edge_too_long_for_its_numbers_is_refused() -> None:
    seconds = GRAPH.time_s.copy()
    seconds[5] = 2**31 / 1000

    with pytest.raises(ValueError, match="25 days"):
        HierarchyRouter(replace(GRAPH, time_s=seconds), build_hierarchy(GRAPH), RoadParams())


def test_a_way_too_long_for_its_numbers_is_none() -> None:
    seconds = np.full(GRAPH.n_edges, 2**30 / 1000)
    router = HierarchyRouter(replace(GRAPH, time_s=seconds), build_hierarchy(GRAPH), RoadParams())

    times = router.times_s(PLACES, PLACES, 0)
    edges = np.isfinite(times) & (times > 0)
    assert edges.sum() == GRAPH.n_edges
    np.testing.assert_allclose(times[edges], 2**30 / 1000)


def test_threads_may_ask_one_router_at_once() -> None:
    """Which alone would crash the process: one metric carries one search."""
    router = HierarchyRouter(GRAPH, build_hierarchy(GRAPH), RoadParams())
    times, distances = router.times_s(PLACES, PLACES, 0), router.distances_m(PLACES[:5], PLACES)
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(5):
            same = np.array_equal(router.times_s(PLACES, PLACES, 0), times)
            if not (same and np.array_equal(router.distances_m(PLACES[:5], PLACES), distances)):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_city_s_router_is_chosen_by_the_size_of_its_streets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"kind": "grid", "south_west_lat": 40.5, "south_west_lng": -74.0, "rows": 5, "columns": 5}

    assert isinstance(router_for(table, "America/New_York", tmp_path, tmp_path), RoadRouter)
    monkeypatch.setattr("routing.city.MAX_NODES", 24)
    assert isinstance(router_for(table, "America/New_York", tmp_path, tmp_path), HierarchyRouter)
