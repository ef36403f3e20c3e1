"""The tables' cache: made once, shared, repaired."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from routing import tables as under_test
from routing.graph import graph_of_edges
from routing.grid import GridParams, grid_graph
from routing.tables import build_tables, load_tables

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=5, columns=5))


def test_cached_tables_are_the_computed_ones_and_mapped(tmp_path: Path) -> None:
    built = build_tables(GRAPH)

    for _ in range(2):
        loaded = load_tables(GRAPH, tmp_path / "new")
        np.testing.assert_array_equal(loaded.times_s, built.times_s)
        np.testing.assert_array_equal(loaded.distances_m, built.distances_m)
        assert not loaded.times_s.flags.writeable
        assert not loaded.times_s.flags.owndata


def test_only_the_first_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_tables(GRAPH, tmp_path)
    monkeypatch.delattr(under_test, "all_pairs")

    load_tables(GRAPH, tmp_path)


def test_another_graph_has_tables_of_its_own(tmp_path: Path) -> None:
    slower = replace(GRAPH, time_s=GRAPH.time_s * 2)

    np.testing.assert_allclose(load_tables(slower, tmp_path).times_s, load_tables(GRAPH, tmp_path).times_s * 2, rtol=1e-3)
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    load_tables(GRAPH, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)

    np.testing.assert_array_equal(load_tables(GRAPH, tmp_path).times_s, build_tables(GRAPH).times_s)
    assert not list(tmp_path.glob("*.part"))


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    load_tables(GRAPH, None)

    assert not list(tmp_path.iterdir())


def test_a_graph_too_large_for_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_NODES", 24)

    with pytest.raises(ValueError, match="at most 24"):
        build_tables(GRAPH)


@pytest.mark.parametrize(("length_m", "time_s"), [(1000.0, 20_000.0), (400_000.0, 10_000.0)])
def test_ways_too_long_for_exact_sums_are_refused(length_m: float, time_s: float) -> None:
    tail, head = np.array([0, 1, 1, 2], "i4"), np.array([1, 0, 2, 1], "i4")
    graph = graph_of_edges(
        np.zeros(3), np.arange(3.0), tail=tail, head=head, length_m=np.full(4, length_m), time_s=np.full(4, time_s)
    )

    with pytest.raises(ValueError, match="too long"):
        build_tables(graph)
