"""How fast is a window assigned? The candidates of many rides and the cheapest assignment, against scipy and a plain loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from benchmarks.figures import Target
from benchmarks.large_roads import PARAMS
from benchmarks.notebook import Notebook
from benchmarks.routing import MS, Places, manhattan_or_grid, timed_s
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import MS_PER_S
from matching.assignment import (
    WAITS,
    AssignmentParams,
    Pairs,
    assign,
    assign_dense,
    pair_cost_milli,
    prices_milli,
    waiting_cost_milli,
)
from routing.road import RoadRouter
from routing.soonest import first_of_each, soonest
from routing.tables import load_tables

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.kernel.units import Floats, Ints
    from matching.assignment import Assignment
    from routing.model import Floats32
    from routing.soonest import Soonest
    from routing.tables import Tables

DRIVING: Final = replace(PARAMS, time_factor=2.2)
"""Manhattan's real rides take 2.2 times free flow, in the median."""
IDLE_S: Final = 1_800.0
WAITED_S: Final = 30.0
CHECKED: Final = 40


@dataclass(frozen=True, slots=True)
class AssignParams:
    """What is measured, and how often. Raises ValueError for what would measure nothing.

    rides, drivers, candidates : of a sparse window
    dense_rides, dense_drivers : of one where every driver could serve every ride
    """

    repeats: int = 5
    rides: int = 5_000
    drivers: int = 20_000
    candidates: int = 30
    dense_rides: int = 1_000
    dense_drivers: int = 3_000
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("repeats", "rides", "drivers", "candidates", "dense_rides", "dense_drivers"):
            if getattr(self, name) < 1:
                raise ValueError(f"nothing to measure: {name} is below 1")
        if self.candidates > self.drivers:
            raise ValueError(f"{self.candidates} candidates are more than {self.drivers} drivers")

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 1 + 2 * self.repeats

    @property
    def targets(self) -> tuple[Target, ...]:
        """The figures."""
        window = f"{self.rides:,} rides x {self.drivers:,} drivers, {self.candidates} candidates"
        dense = f"{self.dense_rides:,} x {self.dense_drivers:,}"
        return (
            Target("sparse_5000x20000_s", f"{window}: from places to who serves whom", "s", 0.4, 0.1, at_most=True),
            Target("sparse_vs_plain", "a loop over rides and scipy's sparse solver / ours", "x"),
            Target("sparse_candidates_ms", "of that, the candidates by road time, places snapped", "ms"),
            Target("candidates_vs_loop", "a loop over the table's rows, places not snapped / ours", "x"),
            Target("sparse_solve_ms", "of that, the assignment", "ms"),
            Target("solve_vs_scipy", "scipy's sparse solver on the same pairs / ours", "x"),
            Target("sparse_waiting", "rides left waiting", ""),
            Target("dense_1000x3000_ms", f"{dense}, everybody could serve everybody", "ms", 30.0, at_most=True),
            Target("dense_vs_scipy", "scipy's dense solver alone / ours, waits and checks included", "x"),
        )


async def run_assign(params: AssignParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
    """The whole benchmark, with its files in this folder. Raises OSError."""
    graph, name = manhattan_or_grid(data_dir)
    steps.begin(f"tables of {name}, {graph.n_nodes:,} junctions")
    tables = load_tables(graph, folder)
    run = _Assigning(params, Notebook(), RoadRouter(graph, tables, DRIVING, folder), tables)
    draw = Places(graph, generator(params.seed, "places"))
    run.window(draw)  # memory that is new to a process is slow: the first window counts for nothing
    for repeat in range(1, params.repeats + 1):
        steps.begin(f"a window of {params.rides:,} rides and {params.drivers:,} drivers, {repeat} of {params.repeats}")
        run.sparse(draw, repeat)
        steps.begin(f"a full table of {params.dense_rides:,} x {params.dense_drivers:,}, {repeat} of {params.repeats}")
        run.dense(repeat)
    report = run.notebook.report("assign", params.targets, params)
    return replace(report, parameters={**report.parameters, "streets": name})


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Where riders wait, for how long, and where drivers are, idle for how long."""

    pickups: Floats
    waited_s: Floats
    drivers: Floats
    idle_s: Floats


@dataclass(frozen=True, slots=True)
class _Assigning:
    """One run."""

    params: AssignParams
    notebook: Notebook
    router: RoadRouter
    tables: Tables

    def window(self, draw: Places) -> _Window:
        """A new one, assigned once."""
        rng, params = generator(self.params.seed, "waits"), self.params
        window = _Window(
            pickups=draw.anywhere(params.rides),
            waited_s=rng.uniform(0, WAITED_S, params.rides),
            drivers=draw.anywhere(params.drivers),
            idle_s=rng.uniform(0, IDLE_S, params.drivers),
        )
        pairs, waiting_milli = self._costs(window, self._candidates(window))
        assign(pairs, waiting_milli, params.drivers)
        return window

    def sparse(self, draw: Places, repeat: int) -> None:
        """Ours and the plain way in turn, and whether they agree."""
        params, window = self.params, self.window(draw)
        kept: dict[str, object] = {}

        def ours() -> None:
            kept["found"] = self._candidates(window)

        candidates_s = timed_s(ours)
        found: Soonest = kept["found"]  # type: ignore[assignment]
        costs: tuple[Pairs, Ints] = self._costs(window, found)
        costs_s = timed_s(lambda: self._costs(window, found))
        pairs, waiting_milli = costs
        solve_s = timed_s(lambda: kept.update(assignment=assign(pairs, waiting_milli, params.drivers)))
        assignment: Assignment = kept["assignment"]  # type: ignore[assignment]
        loop_s = timed_s(partial(self._by_loop, window))
        scipy_s = timed_s(lambda: kept.update(scipy=_by_scipy(pairs, waiting_milli, params.drivers)))
        self.notebook.note(
            sparse_5000x20000_s=candidates_s + costs_s + solve_s,
            sparse_vs_plain=(loop_s + scipy_s) / (candidates_s + costs_s + solve_s),
            sparse_candidates_ms=MS * candidates_s,
            candidates_vs_loop=loop_s / candidates_s,
            sparse_solve_ms=MS * solve_s,
            solve_vs_scipy=scipy_s / solve_s,
            sparse_waiting=float((assignment.driver == WAITS).sum()),
        )
        self._check_candidates(window, found, repeat)
        faults = assignment_faults("a sparse window", assignment, pairs, waiting_milli, params.drivers)
        if kept["scipy"] != assignment.cost_milli:
            faults.append(f"a sparse window: costs {assignment.cost_milli}, and {kept['scipy']} by scipy's solver")
        self.notebook.check("sparse windows against scipy's solver, and by prices", faults)

    def dense(self, repeat: int) -> None:
        """A full table, against scipy's solver alone."""
        rides, drivers = self.params.dense_rides, self.params.dense_drivers
        rng = generator(self.params.seed, "dense", str(repeat))
        cost_milli = rng.integers(0, 1_800_000, (rides, drivers)).astype(np.float64)
        waiting_milli = np.full(rides, 1_800_000)
        kept: dict[str, Assignment] = {}
        ours_s = timed_s(lambda: kept.update(ours=assign_dense(cost_milli, waiting_milli)))
        scipy_s = timed_s(lambda: linear_sum_assignment(cost_milli))
        self.notebook.note(dense_1000x3000_ms=MS * ours_s, dense_vs_scipy=scipy_s / ours_s)
        ride, driver = (each.ravel() for each in np.indices(cost_milli.shape))
        pairs = Pairs(ride, driver, cost_milli.ravel().astype(np.int64))
        self.notebook.check(
            "full tables, by prices", assignment_faults("a full table", kept["ours"], pairs, waiting_milli, drivers)
        )

    def _candidates(self, window: _Window) -> Soonest:
        return soonest(self.router, window.drivers, window.pickups, self.params.candidates, AssignmentParams().pickup_limit_s, 0)

    def _costs(self, window: _Window, found: Soonest) -> tuple[Pairs, Ints]:
        params = AssignmentParams()
        cost_milli = pair_cost_milli(found.time_ms / MS_PER_S, window.idle_s[found.origin], params)
        return Pairs(found.destination, found.origin, cost_milli), waiting_cost_milli(window.waited_s, params)

    def _by_loop(self, window: _Window) -> list[Ints]:
        """The plain way: a row of the table for each ride, and numpy's partition; places are snapped already."""
        table_s: Floats32 = self.tables.times_s
        starts, ends = self.router.snap(window.drivers), self.router.snap(window.pickups)
        start_s, count = starts.gap_m / DRIVING.approach_speed_mps, self.params.candidates
        return [
            np.argpartition(table_s[node][starts.nodes] * DRIVING.time_factor + start_s, count - 1)[:count] for node in ends.nodes
        ]

    def _check_candidates(self, window: _Window, found: Soonest, repeat: int) -> None:
        """Are those of some rides what looking at all drivers says?"""
        some = generator(self.params.seed, "checked", str(repeat)).choice(
            self.params.rides, min(CHECKED, self.params.rides), replace=False
        )
        times_s = self.router.times_s(window.drivers, window.pickups[some], 0).T.astype(np.float64)
        times_s[times_s > AssignmentParams().pickup_limit_s] = np.inf
        faults = []
        for ride, all_s in zip(some.tolist(), times_s, strict=True):
            reached = np.flatnonzero(np.isfinite(all_s))
            whole_ms = np.rint(all_s[reached] * MS_PER_S).astype(np.int64)
            best = first_of_each(np.zeros(len(reached), np.int64), reached, whole_ms, self.params.candidates)
            mine_ms = found.time_ms[found.destination == ride]
            if len(mine_ms) != len(best) or np.abs(mine_ms - best.time_ms).max(initial=0) > 1:
                faults.append(f"candidates: those of ride {ride} are not the soonest")
        self.notebook.check("rides' candidates against all drivers", faults, len(some))


def assignment_faults(what: str, assignment: Assignment, pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> list[str]:
    """Is it an assignment, does it cost what it says, and do prices prove that none is cheaper?"""
    served = np.flatnonzero(assignment.driver != WAITS)
    faults = []
    if len(np.unique(assignment.driver[served])) < len(served):
        faults.append(f"{what}: a driver serves two rides")
    made = assignment.driver[pairs.ride] == pairs.driver
    cost_milli = int(pairs.cost_milli[made].sum()) + int(waiting_milli[assignment.driver == WAITS].sum())
    if made.sum() != len(served) or cost_milli != assignment.cost_milli:
        faults.append(f"{what}: costs {cost_milli}, not {assignment.cost_milli}")
    if prices_milli(pairs, waiting_milli, n_drivers, assignment.driver) is None:
        faults.append(f"{what}: no prices prove that it is the cheapest")
    return faults


def _by_scipy(pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> int:
    """The least cost by scipy's sparse solver, with a column for each ride to wait in."""
    n_rides = len(waiting_milli)
    lift = 1 - min(int(pairs.cost_milli.min(initial=0)), int(waiting_milli.min()))
    own = np.arange(n_rides)
    at = (np.concatenate((pairs.ride, own)), np.concatenate((pairs.driver, n_drivers + own)))
    weight = (np.concatenate((pairs.cost_milli, waiting_milli)) + lift).astype(np.float64)
    graph = csr_array((weight, at), shape=(n_rides, n_drivers + n_rides))
    rows, columns = min_weight_full_bipartite_matching(graph)
    return int(graph[rows, columns].sum()) - lift * n_rides
