"""`hexhail bench routing`, very small: every figure is there, what it checks it has checked, and a wrong answer is found out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import routing as under_test
from benchmarks.hands import HandError
from benchmarks.large_roads import LargeTask, in_fresh_process
from benchmarks.routing import RoutingParams, run_routing
from routing.road import RoadRouter

if TYPE_CHECKING:
    from pathlib import Path

SMALL = RoutingParams(repeats=1, candidates=10, origins=20, destinations=30, questions=6, large_nodes=1_000, grid_nodes=1_000)


class Told:
    """Keeps what a run shows."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def begin(self, what: str) -> None:
        self.steps.append(what)


@pytest.fixture(autouse=True)
def a_small_grid_for_manhattan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MANHATTAN_SIDE", 15)


async def test_a_run_gives_every_figure_and_adds_up(tmp_path: Path) -> None:
    told = Told()
    report = await run_routing(SMALL, tmp_path, tmp_path / "no data", told)

    assert report.faults == ()
    assert {figure.target.key for figure in report.figures} >= {
        "table_s",
        "matrix_1000x3000_ms",
        "candidates_50_ms",
        "large_p50_ms",
        "large_rss_mb",
    }
    assert all(math.isfinite(figure.value) and figure.value >= 0 for figure in report.figures)
    assert {"times of a matrix against an independent search", "trips across the town against an independent search"} <= set(
        report.checked
    )
    assert len(told.steps) == SMALL.steps
    assert "made-up grid, for manhattan/manhattan_network.json is not there" in told.steps[0]
    assert "made-up" in str(report.parameters["streets"])


async def test_a_router_that_is_wrong_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = RoadRouter.times_s

    def wrong(self: RoadRouter, *asked: Any) -> Any:
        return right(self, *asked) * 1.001

    monkeypatch.setattr(RoadRouter, "times_s", wrong)
    monkeypatch.setattr(under_test._Routing, "large", _nothing)
    monkeypatch.setattr(under_test._Routing, "large_grid", _nothing)
    monkeypatch.setattr(RoutingParams, "targets", ())
    report = await run_routing(SMALL, tmp_path, tmp_path, Told())

    assert any("are wrong" in fault for fault in report.faults)


async def test_a_process_that_fails_gives_its_own_account(tmp_path: Path) -> None:
    task = LargeTask(str(tmp_path / "none"), str(tmp_path), str(tmp_path / "nothing.npz"), "", repeats=1, searches=1)

    with pytest.raises(HandError, match=r"nothing\.npz"):
        await in_fresh_process(task)


@pytest.mark.parametrize(
    "wish", [{"repeats": 0}, {"large_nodes": 10}, {"grid_nodes": 10}, {"candidates": 5_000}, {"questions": 0}]
)
def test_what_would_measure_nothing_is_refused(wish: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"below 1|must be"):
        RoutingParams(**wish)


async def _nothing(_: object) -> None:
    return
