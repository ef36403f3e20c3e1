"""`hexhail bench assign`, very small: every figure is there, what it checks it has checked, and a wrong answer is found out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import assign as under_test
from benchmarks import routing
from benchmarks.assign import AssignParams, assignment_faults, run_assign
from matching.assignment import WAITS, Pairs, assign

if TYPE_CHECKING:
    from pathlib import Path

SMALL = AssignParams(repeats=1, rides=60, drivers=150, candidates=6, dense_rides=20, dense_drivers=30)


class Told:
    """Keeps what a run shows."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def begin(self, what: str) -> None:
        self.steps.append(what)


@pytest.fixture(autouse=True)
def a_small_grid_for_manhattan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "MANHATTAN_SIDE", 12)


async def test_a_run_gives_every_figure_and_adds_up(tmp_path: Path) -> None:
    told = Told()
    report = await run_assign(SMALL, tmp_path, tmp_path / "no data", told)

    assert report.faults == ()
    assert {figure.target.key for figure in report.figures} >= {"sparse_5000x20000_s", "sparse_solve_ms", "dense_1000x3000_ms"}
    assert all(math.isfinite(figure.value) and figure.value >= 0 for figure in report.figures)
    assert report.checked["rides' candidates against all drivers"] == 40
    assert len(told.steps) == SMALL.steps


async def test_an_assignment_that_is_not_the_cheapest_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(*asked: Any) -> Any:
        right = assign(*asked)
        driver = right.driver.copy()
        driver[np.flatnonzero(driver != WAITS)[0]] = WAITS
        return replace(right, driver=driver)

    monkeypatch.setattr(under_test, "assign", worse)
    report = await run_assign(SMALL, tmp_path, tmp_path, Told())

    assert any("no prices prove" in fault for fault in report.faults)
    assert any("a sparse window: costs" in fault for fault in report.faults)


def test_a_driver_with_two_rides_is_found_out() -> None:
    pairs, waiting = Pairs(np.array([0, 1]), np.array([0, 0]), np.array([1, 2])), np.array([9, 9])
    twice = replace(assign(pairs, waiting, 1), driver=np.array([0, 0]), cost_milli=3)

    assert "w: a driver serves two rides" in assignment_faults("w", twice, pairs, waiting, 1)


@pytest.mark.parametrize("wish", [{"repeats": 0}, {"rides": 0}, {"candidates": 30_000}])
def test_what_would_measure_nothing_is_refused(wish: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"below 1|more than"):
        AssignParams(**wish)
