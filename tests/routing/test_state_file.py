"""A city's traffic in a file: what was written is read, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from routing.grid import GridParams, grid_graph
from routing.knowledge import Knowledge
from routing.patches import RESOLUTION, patches_of
from routing.road_files import RoutingFileError
from routing.state_file import TrafficState, read_state, write_state
from routing.traffic import Evidence

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=6, columns=6, seed=2))
PATCHES = len(patches_of(GRAPH))
NOON_MS = 1_760_000_000_000


def state(seed: int = 1) -> TrafficState:
    rng = np.random.default_rng(seed)
    knowledge = Knowledge(
        Evidence(rng.uniform(0, 9, (24, PATCHES)), rng.uniform(0, 9, (24, PATCHES))),
        Evidence(rng.uniform(0, 9, PATCHES), rng.uniform(0, 9, PATCHES)),
        31.5,
        0.19,
        NOON_MS,
    )
    slowness = rng.uniform(0.7, 8.0, GRAPH.n_edges).astype(np.float32)
    return TrafficState(GRAPH.digest(), RESOLUTION, 7, NOON_MS, slowness, 31.5, 0.19, knowledge)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path, written = tmp_path / "folder" / "traffic.npz", state()
    write_state(path, written)

    found = read_state(path, GRAPH, PATCHES)

    assert [p.name for p in path.parent.iterdir()] == ["traffic.npz"]
    for name in ("streets", "resolution", "number", "at_ms", "terminal_s", "leg_s_per_m"):
        assert getattr(found, name) == getattr(written, name)
    np.testing.assert_array_equal(found.slowness, written.slowness)
    for one, other in ((found.knowledge.hours, written.knowledge.hours), (found.knowledge.lately, written.knowledge.lately)):
        np.testing.assert_array_equal(one.free_s, other.free_s)
        np.testing.assert_array_equal(one.took_s, other.took_s)
    assert found.knowledge.at_ms == NOON_MS


def test_the_traffic_of_other_streets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traffic.npz"
    write_state(path, state())
    other = grid_graph(GridParams(40.5, -74.0, rows=6, columns=6, seed=3))
    with pytest.raises(RoutingFileError, match=r"traffic\.npz: is the traffic of other streets"):
        read_state(path, other, PATCHES)


def test_another_format_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "traffic.npz"
    with monkeypatch.context() as later:
        later.setattr("routing.state_file.FORMAT", 9)
        write_state(path, state())
    with pytest.raises(RoutingFileError, match="format 9, and this Hexhail reads format 1"):
        read_state(path, GRAPH, PATCHES)


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "traffic.npz"
    write_state(path, state())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RoutingFileError, match=r"traffic\.npz: does not hold a city's traffic"):
        read_state(path, GRAPH, PATCHES)


@pytest.mark.parametrize("content", [b"garbage", b"PK\x03\x04" + bytes(50), b"\x93NUMPY\x01\x00"])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "traffic.npz"
    path.write_bytes(content)
    with pytest.raises(RoutingFileError, match="does not hold a city's traffic"):
        read_state(path, GRAPH, PATCHES)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: replace(s, slowness=s.slowness[:-1]), "slowness is float32"),
        (lambda s: replace(s, slowness=s.slowness * 0), "slowness is not above 0"),
        (lambda s: replace(s, slowness=s.slowness * np.nan), "not finite"),
        (lambda s: replace(s, terminal_s=-1.0), "besides driving"),
        (lambda s: replace(s, terminal_s=float("inf")), "besides driving"),
        (lambda s: replace(s, leg_s_per_m=0.0), "besides driving"),
        (lambda s: replace(s, number=float("inf")), "does not hold a city's traffic"),
        (lambda s: replace(s, resolution=RESOLUTION + 1), f"patches of resolution {RESOLUTION + 1}, not {RESOLUTION}"),
        (lambda s: replace(s, knowledge=replace(s.knowledge, lately=Evidence.none(PATCHES + 1))), "lately_free_s"),
    ],
)
def test_a_state_that_cannot_be_is_refused(tmp_path: Path, change: object, complaint: str) -> None:
    path = tmp_path / "traffic.npz"
    write_state(path, change(state()))  # type: ignore[operator]
    with pytest.raises(RoutingFileError, match=complaint):
        read_state(path, GRAPH, PATCHES)


@pytest.mark.parametrize(("offset", "value"), [(6, 99), (8, 1), (10, 99), (45, 255)])
def test_a_damaged_directory_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    """For a later reader, encrypted, packed in an unknown way, placed elsewhere."""
    path = tmp_path / "traffic.npz"
    write_state(path, state())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    with pytest.raises(RoutingFileError, match="does not hold a city's traffic"):
        read_state(path, GRAPH, PATCHES)


def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "traffic.npz", GRAPH, PATCHES)


def test_objects_are_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "traffic.npz"
    with path.open("wb") as file:
        partial(np.savez, file, head=np.array([{"a": 1}], dtype=object))()
    with pytest.raises(RoutingFileError, match="does not hold"):
        read_state(path, GRAPH, PATCHES)
