"""Newer traffic beside a process that goes on answering: what comes of it, and what is left in the folder."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from routing import tables
from routing.grid import GridParams, grid_graph
from routing.hierarchy import HierarchyRouter, build_hierarchy
from routing.rebuilding import KEPT, RebuildError, make_tables_beside, with_slowness_beside
from routing.road import RoadParams, RoadRouter
from routing.tables import drop_tables, load_tables

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=5, columns=5))
PLACES = GRAPH.places()
SLOWNESS = np.linspace(1.0, 3.0, GRAPH.n_edges)
OTHER = replace(RoadParams(), terminal_s=60.0)


def states(number: int) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return [np.full(GRAPH.n_edges, 1.0 + state / 10) for state in range(1, number + 1)]


def tables_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.npy"))


async def test_tables_are_made_by_another_process_and_only_mapped_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = RoadRouter(GRAPH, load_tables(GRAPH, tmp_path), RoadParams(), tmp_path)
    expected = RoadRouter(GRAPH, load_tables(GRAPH, None), RoadParams()).with_slowness(SLOWNESS, OTHER)
    monkeypatch.delattr(tables, "all_pairs")

    made = await with_slowness_beside(base, SLOWNESS, OTHER)

    assert made.version == expected.version != base.version
    np.testing.assert_array_equal(made.times_s(PLACES, PLACES, 0), expected.times_s(PLACES, PLACES, 0))


async def test_a_hierarchy_takes_its_traffic_in_a_thread() -> None:
    base = HierarchyRouter(GRAPH, build_hierarchy(GRAPH), RoadParams())

    made = await with_slowness_beside(base, SLOWNESS)

    assert made.version == base.with_slowness(SLOWNESS).version


async def test_questions_are_answered_meanwhile(tmp_path: Path) -> None:
    making = asyncio.create_task(make_tables_beside(GRAPH, tmp_path))
    base = RoadRouter(GRAPH, load_tables(GRAPH, None), RoadParams())
    answered = 0
    while not making.done():
        base.times_s(PLACES, PLACES, 0)
        answered += 1
        await asyncio.sleep(0)
    await making

    assert answered > 1
    assert len(tables_in(tmp_path)) == 1


async def test_whoever_gives_up_leaves_no_process_behind(tmp_path: Path) -> None:
    making = asyncio.create_task(make_tables_beside(GRAPH, tmp_path))
    await asyncio.sleep(0)
    making.cancel()

    with pytest.raises(asyncio.CancelledError):
        await making


async def test_a_graph_without_tables_is_refused_as_it_is_here(tmp_path: Path) -> None:
    for slowness, named in ((np.full(GRAPH.n_edges, 2000.0), "too long"), (np.zeros(GRAPH.n_edges), "slowness")):
        base = RoadRouter(GRAPH, load_tables(GRAPH, tmp_path), RoadParams(), tmp_path)
        with pytest.raises(ValueError, match=named):
            await with_slowness_beside(base, slowness)


async def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a_file"
    in_the_way.touch()

    with pytest.raises(RebuildError, match="a_file"):
        await make_tables_beside(GRAPH, in_the_way)


def test_past_traffic_is_dropped_but_for_the_newest(tmp_path: Path) -> None:
    past = [GRAPH.slowed(slowness) for slowness in states(5)]
    for age, graph in enumerate((GRAPH, *past)):
        load_tables(graph, tmp_path)
        newest = max(tmp_path.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, ns=(age, age))
    mapped = load_tables(past[1], tmp_path)
    before = mapped.times_s.copy()

    assert drop_tables((GRAPH, past[0]), tmp_path, keep=2) == 2

    left = {path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert left == {0, 1, 4, 5}
    np.testing.assert_array_equal(mapped.times_s, before)
    np.testing.assert_array_equal(load_tables(past[1], tmp_path).times_s, before)


def test_other_streets_tables_stay(tmp_path: Path) -> None:
    others = grid_graph(GridParams(41.5, -74.0, rows=5, columns=5))
    for graph in (GRAPH, others, GRAPH.slowed(SLOWNESS)):
        load_tables(graph, tmp_path)

    assert drop_tables((GRAPH,), tmp_path, keep=0) == 1
    assert len(list(tmp_path.glob("*.npy"))) == 2


async def test_a_folder_does_not_fill_with_states(tmp_path: Path) -> None:
    base = RoadRouter(GRAPH, load_tables(GRAPH, tmp_path), RoadParams(), tmp_path)
    for slowness in states(KEPT + 2):
        load_tables(GRAPH.slowed(slowness), tmp_path)

    await with_slowness_beside(base, SLOWNESS)

    assert len(tables_in(tmp_path)) == KEPT + 2
