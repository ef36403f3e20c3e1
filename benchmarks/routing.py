"""How fast are travel times on roads? On Manhattan by tables, also while they are made anew; on a large town by a hierarchy."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from benchmarks.figures import Target
from benchmarks.large_roads import PARAMS, LargeTask, in_fresh_process
from benchmarks.metropolis import metropolis
from benchmarks.notebook import Notebook
from benchmarks.road_checks import Roads, route_faults, trip_faults
from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from routing.crow import CrowParams, CrowRouter
from routing.graph_file import SUFFIX, write_graph_file
from routing.grid import GridParams, grid_graph
from routing.loaders import load_road_graph
from routing.rebuilding import with_slowness_beside
from routing.road import RoadRouter
from routing.road_files import GraphReport
from routing.tables import load_tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.kernel.units import Floats, Ints
    from routing.graph import RoadGraph
    from routing.joining import JoinedRouter

MANHATTAN: Final = "manhattan/manhattan_network.json"
MANHATTAN_SIDE: Final = 65
"""Of the grid that takes its place: 4,225 junctions."""
STRAY_M: Final = 30.0
"""How far places are from junctions, in the mean of each direction."""
NEAR: Final = 2_000
"""Candidates are drawn from so many junctions about the pickup."""
GREATEST_SLOWNESS: Final = 3.0
BASELINE_ROWS: Final = 256
SEARCHES: Final = 40
CHECKED: Final = 8
CHECKED_PAIRS: Final = 3
MS: Final = 1_000.0


@dataclass(frozen=True, slots=True)
class RoutingParams:
    """What is measured, and how often.

    candidates : drivers of one request
    origins, destinations : of the matrix
    questions : requests in each repeat
    large_nodes, grid_nodes : junctions of the large town, and of the large even grid; 0 leaves it out
    """

    repeats: int = 5
    candidates: int = 50
    origins: int = 1_000
    destinations: int = 3_000
    questions: int = 200
    large_nodes: int = 200_000
    grid_nodes: int = 200_000
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if min(self.repeats, self.candidates, self.origins, self.destinations, self.questions) < 1:
            raise ValueError("nothing to measure: a count is below 1")
        if not 1_000 <= self.large_nodes <= 2_000_000:
            raise ValueError("large_nodes must be 1,000 to 2,000,000")
        if self.grid_nodes and not 1_000 <= self.grid_nodes <= 1_000_000:
            raise ValueError("grid_nodes must be 0, or 1,000 to 1,000,000")
        if self.candidates > NEAR // 4:
            raise ValueError(f"candidates must be at most {NEAR // 4}")

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 2 + 2 * self.repeats + 4 + (3 if self.grid_nodes else 0)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The figures."""
        matrix = f"{self.origins:,} x {self.destinations:,}"
        of_grid = (
            Target("large_grid_p50_ms", f"an even grid of {self.grid_nodes:,}, the worst case: half of all within", "ms"),
            Target("large_grid_customize_ms", "new traffic on it", "ms"),
            Target("large_grid_rss_mb", "memory of a process that has loaded it and asked", "MB"),
        )
        return (
            Target("table_s", "until a router of new traffic answers, while others ask the old one", "s", 2.5, at_most=True),
            Target("table_vs_bare", "the bare searches alone / all of it", "x"),
            Target("table_queries_meanwhile", "questions meanwhile, against a process that does nothing else", "x", 0.5),
            Target("table_slowest_ms", "the slowest of them", "ms"),
            Target("matrix_1000x3000_ms", f"a matrix of {matrix} from coordinates", "ms", 40.0, at_most=True),
            Target("matrix_vs_fancy", "numpy's fancy index of the same table / ours, snapping included", "x"),
            Target("candidates_50_ms", f"{self.candidates} candidates of a request", "ms", 0.3, at_most=True),
            Target("candidates_vs_crow", "crow-flies times of the same / ours", "x"),
            Target("pair_ms", "one trip, time alone", "ms"),
            Target("route_ms", "one trip, its way", "ms"),
            Target("large_p50_ms", f"{self.large_nodes:,} junctions: half of all requests within", "ms", 3.0, at_most=True),
            Target("large_p99_ms", "99 of 100 within", "ms"),
            Target("large_vs_search", "a search as far as the last candidate / ours", "x"),
            Target("large_pair_p50_ms", "one trip across the town, time alone", "ms"),
            Target("large_route_p50_ms", "one trip across the town, its way", "ms"),
            Target("large_customize_ms", "new traffic", "ms"),
            Target("large_build_s", "the hierarchy made, once for these streets", "s"),
            Target("large_load_s", "streets and hierarchy loaded", "s"),
            Target("large_rss_mb", "memory of a process that has loaded it and asked", "MB", 400.0, at_most=True),
            Target("large_rss_later_mb", "after several states of the traffic", "MB"),
            *(of_grid if self.grid_nodes else ()),
        )


async def run_routing(params: RoutingParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
    """The whole benchmark, with its files in this folder. Raises HandError and OSError."""
    graph, name = manhattan_or_grid(data_dir)
    steps.begin(f"tables of {name}, {graph.n_nodes:,} junctions")
    run = _Routing(params, folder, Notebook(), steps)
    router = RoadRouter(graph, load_tables(graph, folder), PARAMS, folder)
    newest = await run.tables(router)
    run.questions(newest)
    await run.large()
    if params.grid_nodes:
        await run.large_grid()
    report = run.notebook.report("routing", params.targets, params)
    return replace(report, parameters={**report.parameters, "streets": name})


def manhattan_or_grid(data_dir: Path) -> tuple[RoadGraph, str]:
    """Manhattan's streets, or a made-up grid of their size, and what to call them."""
    path = data_dir / MANHATTAN
    if path.is_file():
        return load_road_graph(path)[0], "Manhattan"
    side = MANHATTAN_SIDE
    return grid_graph(GridParams(40.7, -74.0, rows=side, columns=side)), f"a made-up grid, for {MANHATTAN} is not there"


@dataclass(frozen=True, slots=True)
class _Routing:
    """One run."""

    params: RoutingParams
    folder: Path
    notebook: Notebook
    steps: Steps

    async def tables(self, base: RoadRouter) -> JoinedRouter:
        """How soon does a router of new traffic answer, and does the old one answer meanwhile? The newest."""
        rng = generator(self.params.seed, "traffic")
        ask = self._asking(base)
        newest: JoinedRouter = base
        self.steps.begin("what the searches alone take")
        for repeat in range(1, self.params.repeats + 1):
            bare_s = _bare_s(base.graph)
            alone_s = float(np.mean([timed_s(ask) for _ in range(self.params.questions)]))
            self.steps.begin(f"tables of new traffic, while questions go on, {repeat} of {self.params.repeats}")
            slowness = rng.uniform(0.8, GREATEST_SLOWNESS, base.graph.n_edges)
            began_s = time.perf_counter()
            making = asyncio.create_task(with_slowness_beside(base, slowness))
            asked_s = []
            while not making.done():
                asked_s.append(timed_s(ask))
                await asyncio.sleep(0)
            taken_s = time.perf_counter() - began_s
            newest = await making
            self.notebook.note(
                table_s=taken_s,
                table_vs_bare=bare_s / taken_s,
                table_queries_meanwhile=alone_s * len(asked_s) / taken_s,
                table_slowest_ms=MS * max(asked_s),
            )
            wanted = base.graph.slowed(slowness)
            faults = [] if newest.graph.digest() == wanted.digest() else ["new traffic: the router is of another state"]
            self.notebook.check("routers of new traffic", faults)
            self._check("Manhattan in new traffic", newest, Roads(wanted, PARAMS), CHECKED // 4)
        return newest

    def questions(self, router: JoinedRouter) -> None:
        """How fast does it answer?"""
        params = self.params
        crow = CrowRouter(CrowParams(1.3, (20.0,) * 24, "UTC"))
        draw = Places(router.graph, generator(params.seed, "questions"))
        fancy_rng = generator(params.seed, "fancy")
        for repeat in range(1, params.repeats + 1):
            self.steps.begin(f"questions, {repeat} of {params.repeats}")
            requests = [draw.request(params.candidates) for _ in range(params.questions)]
            ours_s = [timed_s(partial(router.times_s, near, pickup, 0)) for pickup, near in requests]
            crow_s = [timed_s(partial(crow.times_s, near, pickup, 0)) for pickup, near in requests]
            pair_s = [timed_s(partial(router.pair_times_s, near[:1], pickup, 0)) for pickup, near in requests]
            route_s = [
                timed_s(partial(router.route, geo.Place(*near[0]), geo.Place(*pickup[0]), 0))
                for pickup, near in requests
                if np.isfinite(router.times_s(near[:1], pickup, 0)).all()
            ]
            origins, destinations = draw.anywhere(params.origins), draw.anywhere(params.destinations)
            matrix_s = timed_s(partial(router.times_s, origins, destinations, 0))
            fancy_s = _fancy_s(router, params.origins, params.destinations, fancy_rng)
            self.notebook.note(
                candidates_50_ms=MS * float(np.median(ours_s)),
                candidates_vs_crow=float(np.median(crow_s) / np.median(ours_s)),
                pair_ms=MS * float(np.median(pair_s)),
                route_ms=MS * float(np.median(route_s)),
                matrix_1000x3000_ms=MS * matrix_s,
                matrix_vs_fancy=fancy_s / matrix_s,
            )
        roads = Roads(router.graph, router.params)
        self._check("Manhattan", router, roads, CHECKED)
        origins, destinations = draw.anywhere(params.origins), draw.anywhere(CHECKED)
        matrix = router.times_s(origins, destinations, 0)
        for column, destination in enumerate(destinations):
            faults = trip_faults("a matrix", matrix[:, column], roads.trips(origins, destination)[0])
            self.notebook.check("times of a matrix against an independent search", faults, len(origins))

    async def large(self) -> None:
        """How fast are answers on a large town, and what does it weigh?"""
        self.steps.begin(f"a town of {self.params.large_nodes:,} junctions")
        graph = metropolis(self.params.large_nodes, self.params.seed)
        built, asked = await self._in_processes("town", graph)
        self.notebook.note(large_build_s=built["hierarchy_s"][0], large_load_s=asked["graph_s"][0] + asked["hierarchy_s"][0])
        self.notebook.note(large_rss_mb=asked["rss_mb"][0], large_rss_later_mb=asked["rss_later_mb"][0])
        for repeat in range(self.params.repeats):
            self.notebook.note(
                large_p50_ms=asked["p50_ms"][repeat],
                large_p99_ms=asked["p99_ms"][repeat],
                large_vs_search=asked["search_ms"][repeat] / asked["p50_ms"][repeat],
                large_pair_p50_ms=asked["pair_p50_ms"][repeat],
                large_route_p50_ms=asked["route_p50_ms"][repeat],
                large_customize_ms=asked["customize_ms"][repeat],
            )

    async def large_grid(self) -> None:
        """The same on an even grid, which no hierarchy likes: every cut through it is long."""
        side = round(self.params.grid_nodes**0.5)
        graph = grid_graph(GridParams(40.5, -74.0, rows=side, columns=side, jitter=0.25, one_way_share=0.4))
        _, asked = await self._in_processes("grid", graph)
        self.notebook.note(large_grid_rss_mb=asked["rss_mb"][0])
        for p50_ms, customize_ms in zip(asked["p50_ms"], asked["customize_ms"], strict=True):
            self.notebook.note(large_grid_p50_ms=p50_ms, large_grid_customize_ms=customize_ms)

    async def _in_processes(self, name: str, graph: RoadGraph) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """What the process said that made the hierarchy, and the one that found it made."""
        params = self.params
        draw = Places(graph, generator(params.seed, name))
        requests = [draw.request(params.candidates) for _ in range(params.questions)]
        pickups, candidates = (np.array(column) for column in zip(*requests, strict=True))
        froms, tos = draw.anywhere(params.questions), draw.anywhere(params.questions)
        streets, questions, answered = (self.folder / f"{name}{end}" for end in (SUFFIX, "-questions.npz", "-answers.npz"))
        np.savez(questions, pickups=pickups[:, 0], candidates=candidates, froms=froms, tos=tos)
        write_graph_file(streets, graph, GraphReport(graph.n_nodes, graph.n_edges))
        task = LargeTask(
            graph=str(streets),
            cache=str(self.folder),
            questions=str(questions),
            answers=str(answered),
            repeats=params.repeats,
            searches=min(params.questions, SEARCHES),
        )
        self.steps.begin(f"{name}: the hierarchy of its streets")
        built = await in_fresh_process(replace(task, repeats=0))
        self.steps.begin(f"{name}: questions")
        asked = await in_fresh_process(task)
        self.steps.begin(f"{name}: are the answers right?")
        answers, roads = np.load(answered), Roads(graph, PARAMS)
        for pickup, near, found in zip(pickups[:CHECKED], candidates, answers["times_s"], strict=False):
            faults = trip_faults(name, found, roads.trips(near, pickup[0])[0])
            self.notebook.check(f"times in the {name} against an independent search", faults, len(near))
        for pair in range(min(CHECKED_PAIRS, len(froms))):
            time_s, length_m = roads.trips(froms[pair : pair + 1], tos[pair])
            faults = trip_faults(f"{name}, a trip", answers["pair_times_s"][pair : pair + 1], time_s)
            if answers["pair_distances_m"][pair] < length_m[0] - 1:
                faults.append(f"{name}, a trip: shorter than any way as fast")
            self.notebook.check(f"trips across the {name} against an independent search", faults)
        return built, asked

    def _asking(self, router: JoinedRouter) -> Callable[[], object]:
        pickup, near = Places(router.graph, generator(self.params.seed, "meanwhile")).request(self.params.candidates)
        return partial(router.times_s, near, pickup, 0)

    def _check(self, what: str, router: JoinedRouter, roads: Roads, count: int) -> None:
        draw = Places(router.graph, generator(self.params.seed, "checked", what))
        for _ in range(count):
            pickup, near = draw.request(self.params.candidates)
            times_s, lengths_m = roads.trips(near, pickup[0])
            faults = trip_faults(f"{what}, times", router.times_s(near, pickup, 0)[:, 0], times_s)
            faults += trip_faults(f"{what}, lengths", router.distances_m(near, pickup)[:, 0], lengths_m)
            self.notebook.check(f"times in {what} against an independent search", faults, len(near))
            reached = np.flatnonzero(np.isfinite(times_s))[:CHECKED]
            routes = [router.route(geo.Place(*near[i]), geo.Place(*pickup[0]), 0) for i in reached]
            faults = route_faults(what, routes, times_s[reached], lengths_m[reached])
            self.notebook.check(f"routes in {what} against an independent search", faults, len(routes))


class Places:
    """Draws places about the junctions of a graph."""

    def __init__(self, graph: RoadGraph, rng: np.random.Generator) -> None:
        self._places = graph.places()
        self._shrunk = np.array([1.0, np.cos(np.radians(graph.lat.mean()))])
        self._tree = cKDTree(self._places * self._shrunk)
        self._rng = rng

    def anywhere(self, count: int) -> Floats:
        """float64[count, 2]."""
        return self._strayed(self._rng.integers(0, len(self._places), count))

    def request(self, candidates: int) -> tuple[Floats, Floats]:
        """A pickup float64[1, 2], and drivers near it float64[candidates, 2]."""
        pickup = self.anywhere(1)
        _, near = self._tree.query(pickup[0] * self._shrunk, min(NEAR, len(self._places)))
        return pickup, self._strayed(self._rng.choice(near, candidates))

    def _strayed(self, nodes: Ints) -> Floats:
        away_m = self._rng.normal(0, STRAY_M, (len(nodes), 2))
        strayed: Floats = self._places[nodes] + np.degrees(away_m / geo.EARTH_RADIUS_M) / self._shrunk
        return strayed


def timed_s(work: Callable[[], object]) -> float:
    """How long does it take?"""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _bare_s(graph: RoadGraph) -> float:
    """What do as many searches alone take as tables need? From a sample of them."""
    n = graph.n_nodes
    towards = csr_array((graph.time_s, graph.head, graph.first_edge), shape=(n, n)).T.tocsr()
    rows = min(BASELINE_ROWS, n)
    return timed_s(partial(dijkstra, towards, indices=np.arange(rows))) * n / rows


def _fancy_s(router: JoinedRouter, rows: int, columns: int, rng: np.random.Generator) -> float:
    """What does numpy take to pick as many times out of a table of the same size?"""
    n = router.graph.n_nodes
    table = np.zeros((n, n), dtype=np.float32) + np.float32(1)
    starts, ends = rng.integers(0, n, rows), rng.integers(0, n, columns)
    return timed_s(lambda: table[ends[:, None], starts])
