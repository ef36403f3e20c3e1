"""GraphML as OSMnx saves it: what is read, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hexhail.kernel import geo
from routing.loaders import RoadFormat, RoutingFileError, format_of, load_road_graph

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "d0": ("graph", "crs"),
    "d1": ("node", "y"),
    "d2": ("node", "x"),
    "d3": ("edge", "length"),
    "d4": ("edge", "speed_kph"),
    "d5": ("edge", "travel_time"),
    "d6": ("edge", "oneway"),
    "d7": ("edge", "highway"),
    "d8": ("edge", "maxspeed"),
    "d9": ("edge", "geometry"),
}
NUMBERS = {name: number for number, (_, name) in KEYS.items()}
NODES: dict[str, dict[str, str]] = {
    "42421728": {"y": "40.0", "x": "-74.0"},
    "42421731": {"y": "40.0", "x": "-73.99"},
    "c": {"y": "40.01", "x": "-74.0"},
    "alone": {"y": "41.0", "x": "-74.0"},
}
A, B, C = "42421728", "42421731", "c"
EDGES: list[tuple[str, str, dict[str, str]]] = [
    (A, B, {"length": "900.0", "travel_time": "50.0", "speed_kph": "1.0", "oneway": "True", "highway": "primary"}),
    (A, B, {"length": "850.0", "travel_time": "60.0"}),
    (B, A, {"length": "900.0", "speed_kph": "36.0", "maxspeed": "50"}),
    (
        B,
        C,
        {
            "length": "600.0",
            "maxspeed": "['50', '70']",
            "geometry": "LINESTRING (-73.99 40, -73.995 40.005, -73.996 40.006, -74 40.01)",
        },
    ),
    (C, A, {"highway": "['residential', 'living_street']"}),
    (A, C, {"length": "1200"}),
    (A, A, {"length": "5"}),
    (A, "alone", {"length": "5"}),
]


def graphml(
    nodes: dict[str, dict[str, str]] = NODES,
    edges: list[tuple[str, str, dict[str, str]]] = EDGES,
    *,
    default: str = "directed",
    crs: str = "epsg:4326",
) -> str:
    def data(values: dict[str, str]) -> str:
        return "".join(f'<data key="{NUMBERS[name]}">{value}</data>' for name, value in values.items())

    lines = ["<?xml version='1.0' encoding='utf-8'?>", '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">']
    lines += [f'<key id="{key}" for="{of}" attr.name="{name}" attr.type="string" />' for key, (of, name) in KEYS.items()]
    lines += [f'<graph edgedefault="{default}">', data({"crs": crs})]
    lines += [f'<node id="{name}">{data(values)}</node>' for name, values in nodes.items()]
    lines += [f'<edge source="{a}" target="{b}" id="{i}">{data(values)}</edge>' for i, (a, b, values) in enumerate(edges)]
    return "\n".join([*lines, "</graph>", "</graphml>", ""])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_graphml_file_becomes_a_graph(tmp_path: Path) -> None:
    path = write(tmp_path / "roads.graphml", graphml())
    graph, report = load_road_graph(path)
    costs = {
        (tail, head): (length_m, length_m / time_s * 3.6)
        for tail, head, length_m, time_s in zip(
            graph.tail().tolist(), graph.head.tolist(), graph.length_m.tolist(), graph.time_s.tolist(), strict=True
        )
    }
    straight_m = geo.distance_m(geo.Place(40.01, -74.0), geo.Place(40.0, -74.0))

    assert format_of(path) is RoadFormat.GRAPHML
    assert graph.places().tolist() == [[40.0, -74.0], [40.0, -73.99], [40.01, -74.0]]
    assert costs[0, 1] == pytest.approx((900.0, 900 / 50 * 3.6))
    assert costs[1, 0] == pytest.approx((900.0, 36.0))
    assert costs[1, 2] == pytest.approx((600.0, 60.0), rel=1e-4)
    assert costs[2, 0] == pytest.approx((straight_m, 10.0), rel=1e-4)
    assert costs[0, 2] == pytest.approx((1200.0, 30.0))
    assert {
        (int(tail), int(head)): len(graph.course(edge))
        for edge, (tail, head) in enumerate(zip(graph.tail(), graph.head, strict=True))
    } == {(0, 1): 2, (0, 2): 2, (1, 0): 2, (1, 2): 4, (2, 0): 2}
    assert (report.parallel_dropped, report.loops_dropped, report.nodes_dropped, report.edges_dropped) == (1, 1, 1, 1)


def test_the_order_of_edges_does_not_matter(tmp_path: Path) -> None:
    graph, _ = load_road_graph(write(tmp_path / "roads.graphml", graphml()))
    again, _ = load_road_graph(write(tmp_path / "again.graphml", graphml(edges=EDGES[::-1])))

    assert again.digest() == graph.digest()


def test_an_undirected_file_leads_both_ways(tmp_path: Path) -> None:
    edges = [(A, B, {"length": "900", "oneway": "False", "geometry": "LINESTRING (-74 40, -73.995 40.001, -73.99 40)"})]
    graph, _ = load_road_graph(write(tmp_path / "roads.graphml", graphml(edges=edges, default="undirected")))

    assert graph.n_edges == 2
    assert graph.course(0).tolist() == [[40.0, -74.0], [40.001, -73.995], [40.0, -73.99]]
    assert graph.course(1).tolist() == graph.course(0).tolist()[::-1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not well-formed XML"),
        ("<graphml", "not well-formed XML"),
        (graphml()[:-15], "not well-formed XML"),
        ("<?xml version='1.0' encoding='nowhere'?><graphml/>", "not well-formed XML"),
        ("<graphml/>", "no nodes"),
        (graphml(nodes={}, edges=[]), "no nodes"),
        (graphml(edges=[]), "no edge"),
        (graphml(edges=[(A, A, {})]), "no edge"),
        (graphml(edges=[(A, B, {})]), "reach each other"),
        (graphml(edges=[(A, "elsewhere", {})]), "names the node 'elsewhere', which is not there"),
        (graphml(nodes=NODES | {"n": {"y": "1"}}), "node 'n' has no 'x'"),
        (graphml(nodes=NODES | {"n": {"y": "nan", "x": "1"}}), "node 'n': y is nan, out of range"),
        (graphml(nodes=NODES | {"n": {"y": "91", "x": "1"}}), "node 'n': y is 91.0, out of range"),
        (graphml(nodes=NODES | {"n": {"y": "north", "x": "1"}}), "'north', not a number"),
        (graphml().replace('id="c"', f'id="{A}"'), "is there twice"),
        (graphml().replace('node id="c"', "node"), "a node has no id"),
        (graphml().replace('target="c"', ""), "no target"),
        (graphml(edges=[(A, B, {"length": "-1"})]), "length is -1.0, out of range"),
        (graphml(edges=[(A, B, {"length": "inf"})]), "length is inf, out of range"),
        (graphml(edges=[(A, B, {"travel_time": "1 min"})]), "not a number"),
        (graphml(edges=[(A, B, {"speed_kph": "0"})]), "speed_kph is 0"),
        (graphml(edges=[(A, B, {"geometry": "LINESTRING (1"})]), "not well-known text"),
        (graphml(edges=[(A, B, {"geometry": "POINT (1 1)"})]), "edge '42421728' to '42421731': geometry is not a LINESTRING"),
        (graphml(edges=[(A, B, {"geometry": "LINESTRING (1 1, 500 1)"})]), "not on the globe"),
        (graphml(crs="epsg:32618"), "projected"),
        (graphml(edges=[(A, B, {"oneway": "True"})], default="undirected"), "one-way in an undirected graph"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_fault(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "roads.graphml", text)

    with pytest.raises(RoutingFileError, match=problem) as caught:
        load_road_graph(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
