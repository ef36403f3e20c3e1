"""A city's road file: what is written is what is read, and nothing else is taken for it."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.bends import Bends
from routing.city import router_for
from routing.components import largest_component
from routing.graph import RoadGraph
from routing.graph_file import FORMAT, write_graph_file
from routing.grid import GridParams, grid_graph
from routing.loaders import GraphReport, RoadFormat, RoutingFileError, format_of, load_road_graph

GRID = grid_graph(GridParams(40.5, -74.0, rows=5, columns=6))
REPORT = GraphReport(nodes=GRID.n_nodes, edges=GRID.n_edges, length_m=1234.5, ways_closed=7)


def with_bends(graph: RoadGraph, seed: int) -> RoadGraph:
    rng = np.random.default_rng(seed)
    first = np.concatenate(([0], np.cumsum(rng.integers(0, 4, graph.n_edges)))).astype(np.int32)
    return replace(graph, bends=Bends(first, rng.integers(0, 10**8, first[-1]), rng.integers(-(10**9), 10**9, first[-1])))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.floats(0, 0.3), st.floats(0, 1), st.integers(0, 10**6), st.booleans())
def test_what_is_written_is_what_is_read(
    rows: int, columns: int, jitter: float, one_way_share: float, seed: int, bent: bool
) -> None:
    params = GridParams(40.5, -74.0, rows=rows, columns=columns, jitter=jitter, one_way_share=one_way_share, seed=seed)
    graph = with_bends(grid_graph(params), seed) if bent else grid_graph(params)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.hexroads"
        write_graph_file(path, graph, REPORT)
        again, report = load_road_graph(path)

        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    assert again.digest() == graph.digest()
    assert report == REPORT
    assert (again.bends is None) == (graph.bends is None)
    for edge in range(graph.n_edges):
        assert again.course(edge).tolist() == graph.course(edge).tolist()


def test_its_content_tells_its_kind_whatever_its_name(tmp_path: Path) -> None:
    write_graph_file(tmp_path / "city.json", GRID, REPORT)

    assert format_of(tmp_path / "city.json") is RoadFormat.HEXROADS


def test_it_is_as_readable_as_other_files(tmp_path: Path) -> None:
    path, other = tmp_path / "city.hexroads", tmp_path / "other"
    write_graph_file(path, GRID, REPORT)
    other.touch()

    assert path.stat().st_mode == other.stat().st_mode


def test_a_city_can_name_it(tmp_path: Path) -> None:
    write_graph_file(tmp_path / "city.hexroads", GRID, REPORT)

    router = router_for({"kind": "road", "file": "city.hexroads"}, "America/New_York", tmp_path, None)

    assert router.covers(GRID.places()).all()


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "cut short": content[:-1],
        "cut short: 20 bytes": content[:20],
        "cut short: 8 bytes": content[:8],
        f"of format {FORMAT + 1}": content[:8] + struct.pack("<I", FORMAT + 1) + content[12:],
        "damaged": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "is damaged": content + b"\0",
        "damaged: its content": content[:24] + bytes(16) + content[40:],
    }


@pytest.mark.parametrize("problem", damaged(bytes(100)))
def test_a_bad_file_is_refused_with_its_name_and_fault(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "city.hexroads"
    write_graph_file(path, GRID, REPORT)
    path.write_bytes(damaged(path.read_bytes())[problem])

    with pytest.raises(RoutingFileError, match=problem) as caught:
        load_road_graph(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_bit_and_no_lost_byte_goes_unnoticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.hexroads"
        write_graph_file(path, GRID, REPORT)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[at:]
        path.write_bytes(content)

        with pytest.raises(RoutingFileError, match=r"city\.hexroads"):
            load_road_graph(path)


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_what_is_no_road_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "city.hexroads"
    path.write_bytes(content)

    with pytest.raises(RoutingFileError, match="not a Hexhail road file"):
        load_road_graph(path)


def test_a_failed_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "city.hexroads"
    write_graph_file(path, GRID, REPORT)
    before = path.read_bytes()

    with pytest.raises(ValueError, match="too large"):
        write_graph_file(path, replace(GRID, length_m=GRID.length_m + 1e10), REPORT)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bends_follow_their_edges() -> None:
    tail_to_itself = with_bends(GRID, 3)
    slowed = tail_to_itself.slowed(np.full(GRID.n_edges, 2.0))

    assert slowed.bends is tail_to_itself.bends
    assert tail_to_itself.digest() == GRID.digest()
    assert largest_component(tail_to_itself).course(5).tolist() == tail_to_itself.course(5).tolist()


def test_a_part_keeps_the_bends_of_its_edges() -> None:
    lat = np.array([40.0, 40.1, 40.2])
    first_edge, head = np.array([0, 1, 3, 3], "i4"), np.array([1, 0, 2], "i4")
    bends = Bends(np.array([0, 1, 3, 4]), np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8]))
    graph = RoadGraph(lat, lat, first_edge, head, np.ones(3), np.ones(3), bends)

    part = largest_component(graph)

    assert part.n_edges == 2
    assert part.bends is not None
    assert part.bends.first.tolist() == [0, 1, 3]
    assert part.bends.lat_e7.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("first", "lat_e7", "lng_e7", "problem"),
    [
        ([0, 1], [1], [1, 2], "lng_e7"),
        ([0, 2], [1], [1], "first"),
        ([1, 1], [1], [1], "first"),
        ([0, 2, 1], [1], [1], "first"),
        ([], [], [], "first"),
        ([0, 1], [900_000_001], [1], "lat_e7"),
        ([0, 1], [1], [-1_800_000_001], "lng_e7"),
    ],
)
def test_unfit_bends_are_refused_by_name(first: list[int], lat_e7: list[int], lng_e7: list[int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Bends(np.array(first, "i4"), np.array(lat_e7, "i4"), np.array(lng_e7, "i4"))


def test_bends_of_other_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="bends"):
        replace(GRID, bends=Bends(np.zeros(2, "i4"), np.empty(0, "i4"), np.empty(0, "i4")))
