"""Road files: what is read, what is left out, what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hexhail.kernel import geo
from routing.city import router_for
from routing.loaders import GraphReport, RoutingFileError, load_road_graph

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("HEXHAIL_DATA") or REPOSITORY.parent / "shared" / "data")
MANHATTAN = DATA / "manhattan" / "manhattan_network.json"
needs_data = pytest.mark.skipif(not MANHATTAN.is_file(), reason="HEXHAIL_DATA names no folder with manhattan/")


def node(name: object, lat: float, lng: float) -> dict[str, object]:
    return {"id": name, "y": lat, "x": lng}


def link(source: object, target: object, **rest: object) -> dict[str, object]:
    return {"source": source, "target": target, **rest}


NODES = [node("a", 40.0, -74.0), node(7, 40.0, -73.99), node([1, 2], 40.01, -74.0), node("alone", 41.0, -74.0)]
LINKS = [
    link("a", 7, length=850.0, travel_time=60.0),
    link("a", 7, length=900.0, travel_time=50.0, key=1),
    link(7, "a", length=900.0, speed_kmph=36.0),
    link(7, [1, 2], length=600.0),
    link([1, 2], "a"),
    link("a", "a", length=5.0),
    link("a", "alone", length=5.0),
]


def write(path: Path, nodes: object = NODES, links: object = LINKS, key: str = "links", **rest: object) -> Path:
    path.write_text(json.dumps({"directed": True, "nodes": nodes, key: links, **rest}))
    return path


@pytest.mark.parametrize("key", ["links", "edges"])
def test_a_node_link_file_becomes_a_graph(tmp_path: Path, key: str) -> None:
    graph, report = load_road_graph(write(tmp_path / "roads.json", key=key))

    assert replace(report, length_m=0.0) == GraphReport(
        nodes=3, edges=4, nodes_dropped=1, edges_dropped=1, dropped_m=5.0, parallel_dropped=1, loops_dropped=1
    )
    assert report.length_m == pytest.approx(graph.length_m.sum())
    assert graph.places().tolist() == [[40.0, -74.0], [40.0, -73.99], [40.01, -74.0]]
    costs = {
        (tail, head): (length_m, time_s)
        for tail, head, length_m, time_s in zip(
            graph.tail().tolist(), graph.head.tolist(), graph.length_m.tolist(), graph.time_s.tolist(), strict=True
        )
    }
    straight_m = geo.distance_m(geo.Place(40.01, -74.0), geo.Place(40.0, -74.0))
    assert costs[0, 1] == (900.0, 50.0)
    assert costs[1, 0] == (900.0, 90.0)
    assert costs[1, 2] == (600.0, 72.0)
    assert costs[2, 0] == pytest.approx((straight_m, straight_m / (30 / 3.6)), abs=1e-3)


def test_an_undirected_file_leads_both_ways(tmp_path: Path) -> None:
    path = write(tmp_path / "roads.json", NODES[:2], [link("a", 7, length=850.0)], directed=False)

    graph, _ = load_road_graph(path)

    assert graph.n_edges == 2


def test_an_impossible_speed_is_slowed_and_counted(tmp_path: Path) -> None:
    links = [link("a", 7, length=1300.0, travel_time=1.0), link(7, "a", length=1300.0, speed_kmph=251.0)]
    graph, report = load_road_graph(write(tmp_path / "roads.json", NODES[:2], links))

    assert report.slowed == 2
    assert graph.time_s.tolist() == [36.0, 36.0]


def broken(nodes: object = NODES, links: object = LINKS) -> str:
    return json.dumps({"nodes": nodes, "links": links})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\x00\x01", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no JSON object"),
        ("{}", "nodes"),
        ('{"nodes": {}}', "nodes"),
        ('{"nodes": [1]}', "nodes"),
        (broken(nodes=[]), "no nodes"),
        ('{"nodes": [{"id": 1, "x": 1, "y": 1}]}', "links or edges"),
        (broken(nodes=[{"y": 1, "x": 1}]), "'id'"),
        (broken(nodes=[{"id": 1, "y": 1}]), "'x'"),
        (broken(nodes=[node(1, 1, 1), node(1, 2, 2)]), "twice"),
        (broken(nodes=[{"id": 1, "y": "north", "x": 1}]), "not a number"),
        (broken(nodes=[{"id": 1, "y": True, "x": 1}]), "not a number"),
        (broken(nodes=[node(1, float("nan"), 1)]), "out of range"),
        (broken(nodes=[node(1, 91, 1)]), "out of range"),
        (broken(links=[]), "no edge"),
        (broken(links=[link("a", "a")]), "no edge"),
        (broken(links=[link("a", 7)]), "reach each other"),
        (broken(links=[link("a", 8)]), "which is not there"),
        (broken(links=[{"source": "a"}]), "'target'"),
        (broken(links=[link("a", 7, length=float("inf"))]), "out of range"),
        (broken(links=[link("a", 7, length=-1)]), "out of range"),
        (broken(links=[link("a", 7, travel_time="1 min")]), "not a number"),
        (broken(links=[link("a", 7, travel_time=float("nan"))]), "out of range"),
        (broken(links=[link("a", 7, speed_kmph=0)]), "speed_kmph is 0"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_fault(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "roads.json"
    path.write_text(text)

    with pytest.raises(RoutingFileError, match=problem) as caught:
        load_road_graph(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


ROADS: dict[str, Any] = {"kind": "road", "file": "roads.json", "time_factor": 2.2}
GRID: dict[str, Any] = {"kind": "grid", "south_west_lat": 40.5, "south_west_lng": -74, "rows": 4, "snap_limit_m": 200}
CROW: dict[str, Any] = {"kind": "crow", "detour_factor": 1.3, "speed_kmh_by_hour": [20] * 24}


@pytest.mark.parametrize("table", [ROADS, GRID, CROW])
def test_a_citys_table_becomes_its_router(tmp_path: Path, table: dict[str, Any]) -> None:
    write(tmp_path / "roads.json")

    router = router_for(table, "America/New_York", tmp_path, tmp_path / "cache")

    place = np.array([[40.5 if table is GRID else 40.0, -74.0]])
    assert router.times_s(place, place, 0)[0, 0] == 0
    assert router_for(table, "America/New_York", tmp_path, None).version == router.version


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({}, "kind is None"),
        ({"kind": "horse"}, "kind is 'horse'"),
        (ROADS | {"snap": 1}, "snap"),
        (GRID | {"snap": 1}, "snap"),
        (CROW | {"snap": 1}, "snap"),
        (CROW | {"time_zone": "UTC"}, "time_zone"),
        (GRID | {"rows": 4.5}, "rows"),
        (GRID | {"rows": "4"}, "rows"),
        (GRID | {"jitter": True}, "jitter"),
        (GRID | {"time_factor": -1}, "time_factor"),
        (CROW | {"speed_kmh_by_hour": [20] * 23}, "speed_kmh_by_hour"),
        (CROW | {"detour_factor": float("nan")}, "detour_factor"),
        ({"kind": "crow"}, "detour_factor"),
        ({"kind": "road"}, "file is missing"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path: Path, table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        router_for(table, "America/New_York", tmp_path, None)

    assert "\n" not in str(caught.value)


def test_a_road_file_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"roads\.json.*HEXHAIL_DATA"):
        router_for(ROADS, "America/New_York", tmp_path, None)


@needs_data
def test_manhattan_is_read_whole() -> None:
    graph, report = load_road_graph(MANHATTAN)

    assert (report.nodes, report.nodes_dropped, report.edges_dropped) == (4197, 0, 0)
    assert report.edges + report.parallel_dropped == 7534
    assert graph.length_m.sum() / 1000 == pytest.approx(904, abs=2)
    assert report.slowed == 1


@needs_data
def test_manhattans_rides_take_plausible_times(tmp_path: Path) -> None:
    table = {"kind": "road", "file": "manhattan/manhattan_network.json", "time_factor": 2.2}
    router = router_for(table, "America/New_York", DATA, tmp_path)
    times_square, wall_street = geo.Place(40.7580, -73.9855), geo.Place(40.7064, -74.0094)
    brooklyn, liberty_island = np.array([[40.6500, -73.9500]]), np.array([[40.6892, -74.0445]])

    route = router.route(times_square, wall_street, 0)

    assert 6_000 < route.length_m < 12_000
    assert 800 < route.duration_s < 2_400
    assert not router.covers(np.concatenate((brooklyn, liberty_island))).any()
