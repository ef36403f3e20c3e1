"""OpenStreetMap files: the same streets from every kind of file, and a clear word on every bad one."""

from __future__ import annotations

import bz2
import gzip
from typing import TYPE_CHECKING

import numpy as np
import osmium
import pytest

from hexhail.kernel import geo
from routing.loaders import RoadFormat, RoutingFileError, format_of, load_road_graph
from routing.osm import OsmParams

if TYPE_CHECKING:
    from pathlib import Path

# 1 - 2 - 3 is a street with a bend at 2 and a one-way part beyond 3; 5 is a farm that only its owner reaches; 8 stands behind a
# bollard; way 14 leaves the file.
NODES = {
    1: (40.000, -74.000),
    2: (40.001, -74.000),
    3: (40.001, -73.999),
    4: (40.002, -73.999),
    5: (40.010, -74.000),
    6: (40.003, -74.000),
    7: (40.002, -74.001),
    8: (40.003, -74.001),
}
WAYS: dict[int, tuple[list[int], dict[str, str]]] = {
    10: ([1, 2, 3], {"highway": "residential", "name": "Bend Street"}),
    11: ([3, 4], {"highway": "primary", "oneway": "yes", "maxspeed": "72"}),
    12: ([1, 4], {"highway": "primary", "oneway": "-1", "maxspeed": "250"}),
    13: ([1, 5], {"highway": "service", "access": "private"}),
    14: ([4, 6, 99], {"highway": "tertiary"}),
    15: ([1, 4], {"highway": "footway"}),
    16: ([1, 7, 8], {"highway": "residential"}),
    17: ([1, 4, 6, 1], {"building": "yes"}),
}
BARRIERS = {7: "bollard"}


def xml(
    nodes: dict[int, tuple[float, float]] = NODES,
    ways: dict[int, tuple[list[int], dict[str, str]]] = WAYS,
    *,
    barriers: dict[int, str] = BARRIERS,
    more: str = "",
) -> str:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<osm version="0.6" generator="by hand">']
    for number, (lat, lng) in nodes.items():
        tag = f'<tag k="barrier" v="{barriers[number]}"/>' if number in barriers else ""
        lines.append(f'<node id="{number}" lat="{lat}" lon="{lng}">{tag}</node>')
    for number, (refs, tags) in ways.items():
        inside = [f'<nd ref="{ref}"/>' for ref in refs] + [f'<tag k="{k}" v="{v}"/>' for k, v in tags.items()]
        lines.append(f'<way id="{number}">{"".join(inside)}</way>')
    return "\n".join([*lines, more, "</osm>", ""])


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def as_pbf(path: Path, source: Path) -> Path:
    with osmium.SimpleWriter(path) as writer:
        for entity in osmium.FileProcessor(source):
            writer.add(entity)
    return path


def test_a_map_becomes_a_graph(tmp_path: Path) -> None:
    graph, report = load_road_graph(write(tmp_path / "town.osm", xml()))
    bend_m = sum(geo.distances_m(*NODES[a], *NODES[b]) for a, b in ((1, 2), (2, 3)))
    costs = {
        (tuple(graph.places()[tail]), tuple(graph.places()[head])): (length_m, length_m / time_s * 3.6)
        for tail, head, length_m, time_s in zip(graph.tail(), graph.head, graph.length_m, graph.time_s, strict=True)
    }

    assert graph.places().tolist() == [list(NODES[number]) for number in (1, 3, 4, 6, 7)]
    assert costs[NODES[1], NODES[3]] == pytest.approx((bend_m, 30), rel=1e-4)
    assert costs[NODES[3], NODES[1]] == pytest.approx((bend_m, 30), rel=1e-4)
    assert costs[NODES[3], NODES[4]][1] == pytest.approx(72, rel=1e-3)
    assert costs[NODES[4], NODES[1]][1] == pytest.approx(130, rel=1e-3)
    assert costs[NODES[4], NODES[6]][1] == pytest.approx(45, rel=1e-3)
    assert costs[NODES[1], NODES[7]][1] == pytest.approx(30, rel=1e-3)
    assert len(costs) == graph.n_edges == 8
    assert graph.course(0) == pytest.approx(np.array([NODES[1], NODES[2], NODES[3]]))
    assert (report.ways, report.ways_closed, report.slowed, report.barriers, report.points_missing) == (5, 1, 1, 1, 1)
    assert (report.nodes, report.edges, report.points_joined, report.points_added) == (5, 8, 1, 0)
    assert (report.nodes_dropped, report.edges_dropped) == (2, 2)
    assert report.length_m == pytest.approx(graph.length_m.sum())
    assert report.dropped_m == pytest.approx(2 * geo.distances_m(*NODES[7], *NODES[8]))


def test_every_kind_of_file_gives_the_same_graph(tmp_path: Path) -> None:
    plain = write(tmp_path / "town.osm", xml())
    files = {
        RoadFormat.XML: plain,
        RoadFormat.PBF: as_pbf(tmp_path / "town.osm.pbf", plain),
        RoadFormat.XML_GZ: tmp_path / "town.osm.gz",
        RoadFormat.XML_BZ2: tmp_path / "town.osm.bz2",
    }
    files[RoadFormat.XML_GZ].write_bytes(gzip.compress(plain.read_bytes()))
    files[RoadFormat.XML_BZ2].write_bytes(bz2.compress(plain.read_bytes()))
    digest = load_road_graph(plain)[0].digest()

    for kind, path in files.items():
        assert format_of(path) is kind
        assert load_road_graph(path)[0].digest() == digest

        misnamed = path.rename(tmp_path / f"{kind.name}.download")
        assert format_of(misnamed) is kind
        assert load_road_graph(misnamed)[0].digest() == digest


def test_the_order_of_elements_does_not_matter(tmp_path: Path) -> None:
    backwards = xml(dict(reversed(NODES.items())), dict(reversed(WAYS.items())))
    ways_first = xml({}, WAYS, more="\n".join(line for line in xml().splitlines() if line.startswith("<node")))
    expected, report = load_road_graph(write(tmp_path / "town.osm", xml()))

    for number, text in enumerate((backwards, ways_first)):
        graph, again = load_road_graph(write(tmp_path / f"{number}.osm", text))
        assert graph.digest() == expected.digest()
        assert again == report


def test_drafts_with_numbers_below_zero_are_read(tmp_path: Path) -> None:
    graph, _ = load_road_graph(write(tmp_path / "draft.osm", xml().replace('id="', 'id="-').replace('ref="', 'ref="-')))

    assert graph.n_edges == 8


def test_the_speed_of_a_class_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "town.osm", xml())

    graph, _ = load_road_graph(path, OsmParams({"residential": 15.0}))
    usual, _ = load_road_graph(path)

    assert sorted(np.round(graph.time_s / usual.time_s, 2).tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("speeds", "longest_m", "problem"),
    [
        ({"footway": 5.0}, 500.0, "'footway' is no class"),
        ({"residential": 0.0}, 500.0, "residential is 0"),
        ({"residential": float("nan")}, 500.0, "residential is nan"),
        ({"residential": 200.0}, 500.0, "residential is 200"),
        ({}, 0.0, "longest_edge_m"),
        ({}, float("inf"), "longest_edge_m"),
    ],
)
def test_unfit_parameters_are_refused_by_name(speeds: dict[str, float], longest_m: float, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        OsmParams(speeds, longest_m)


FOOTPATH = {10: ([1, 2], {"highway": "footway"})}
PRIVATE = {10: ([1, 2], {"highway": "residential", "access": "no"})}
STREET: dict[int, tuple[list[int], dict[str, str]]] = {10: ([1, 2, 3], {"highway": "residential"})}
ONE_WAY = {10: ([1, 2], {"highway": "residential", "oneway": "yes"})}
ONE_POINT = {10: ([1], {"highway": "residential"})}
NO_POINT: dict[int, tuple[list[int], dict[str, str]]] = {10: ([], {"highway": "residential"})}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1"),
        ("<osm", "unclosed token"),
        ("hello", "syntax error"),
        ("<html/>", "html"),
        ('<?xml version="1.0"?><osm version="0.5"/>', "version"),
        (xml()[:-20], "unclosed token"),
        (xml(ways={}), "no streets"),
        (xml(ways=FOOTPATH), "no streets"),
        (xml(ways=PRIVATE), "no streets"),
        (xml(ways=NO_POINT), "no streets"),
        (xml(ways=ONE_POINT), "no edge"),
        (xml(ways=ONE_WAY), "reach each other"),
        (xml(nodes={}, ways=STREET), "lacks 3 of the 3 points"),
        (xml(nodes={1: NODES[1], 2: NODES[2]}, ways=STREET), "lacks 1 of the 3 points"),
        (xml(nodes=NODES | {2: (float("nan"), -74.0)}, ways=STREET), "nan"),
        (xml(nodes=NODES | {2: (91.0, -74.0)}, ways=STREET), "node 2 has no place"),
        (xml(more='<node id="3"/>'), "node 3 has no place"),
        (xml(more='<node id="3" lat="1" lon="1"/>'), "node 3 is there twice"),
        (xml(more='<way id="10"><nd ref="1"/><nd ref="3"/><tag k="highway" v="primary"/></way>'), "way 10 is there twice"),
        (xml(more='<way id="20" visible="false"><nd ref="1"/><tag k="highway" v="primary"/></way>'), "deleted element 20"),
        (xml().replace('ref="3"', 'ref="three"'), "three"),
    ],
)
def test_a_bad_map_is_refused_with_its_name_and_fault(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "town.osm", text)

    with pytest.raises(RoutingFileError, match=problem) as caught:
        load_road_graph(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_anywhere_is_refused_or_said_to_be_incomplete(tmp_path: Path) -> None:
    plain = write(tmp_path / "town.osm", xml())
    whole = as_pbf(tmp_path / "town.osm.pbf", plain).read_bytes()
    compressed = {"osm.pbf": whole, "osm.gz": gzip.compress(plain.read_bytes()), "osm.bz2": bz2.compress(plain.read_bytes())}
    for suffix, content in compressed.items():
        path = tmp_path / f"cut.{suffix}"
        for length in (0, 1, 10, len(content) // 2, len(content) - 9, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(RoutingFileError, match=r"cut\.osm"):
                load_road_graph(path)


@pytest.mark.parametrize("name", ["town.osm.pbf", "town.osm.gz", "town.osm.bz2", "town.osm"])
def test_what_is_no_map_at_all_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 something else entirely " * 40)

    with pytest.raises(RoutingFileError, match=r"cannot be read as OpenStreetMap data"):
        load_road_graph(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04"])
def test_a_file_of_an_unknown_kind_is_refused_with_the_kinds_that_are_known(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "town.zip"
    path.write_bytes(content)

    with pytest.raises(RoutingFileError, match=r"town\.zip: is .*not a road file of a known kind.*\.pbf"):
        load_road_graph(path)


def test_an_extract_that_lacks_points_beyond_its_border_is_cut_there(tmp_path: Path) -> None:
    _, report = load_road_graph(write(tmp_path / "town.osm", xml()))

    assert report.points_missing == 1
