"""A large network in a process of its own, as a service has it: how soon is it there, how fast and how heavy is it?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import psutil
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from benchmarks.hands import HandError
from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S
from routing.graph_file import read_graph_file
from routing.hierarchy import HierarchyRouter, load_hierarchy
from routing.joining import RoadParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph

T = TypeVar("T")

MB: Final = 1e6
PARAMS: Final = RoadParams()


@dataclass(frozen=True, slots=True)
class LargeTask:
    """What to do: the graph's file, the folder of the hierarchy, the questions, and where the answers go.

    questions : an .npz with pickups float64[q, 2], candidates float64[q, k, 2], froms and tos float64[p, 2]
    searches : questions of each repeat that the baseline is asked as well
    """

    graph: str
    cache: str
    questions: str
    answers: str
    repeats: int
    searches: int


async def in_fresh_process(task: LargeTask) -> dict[str, list[float]]:
    """Samples by figure, measured by a process that has loaded nothing else. Raises HandError where it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.large_roads",
        json.dumps(asdict(task)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        told, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise HandError(complaint.decode(errors="replace").strip()[-2000:] or f"exit code {process.returncode}")
    samples: dict[str, list[float]] = json.loads(told)
    return samples


def measure(task: LargeTask) -> dict[str, list[float]]:
    """All of it. The first process to come makes the hierarchy."""
    asked = np.load(task.questions)
    taken_s, (graph, _) = _timed(partial(read_graph_file, Path(task.graph)))
    hierarchy_s, hierarchy = _timed(partial(load_hierarchy, graph, Path(task.cache)))
    _, router = _timed(partial(HierarchyRouter, graph, hierarchy, PARAMS))
    figures: dict[str, list[float]] = {"graph_s": [taken_s], "hierarchy_s": [hierarchy_s]}
    figures |= {"p50_ms": [], "p99_ms": [], "search_ms": [], "pair_p50_ms": [], "route_p50_ms": []}
    times_s = []
    for repeat in range(task.repeats):
        timed = [
            _timed(partial(router.times_s, candidates, pickup[None], 0))
            for pickup, candidates in zip(asked["pickups"], asked["candidates"], strict=True)
        ]
        times_s = [answer[:, 0] for _, answer in timed]
        ours_ms = [1_000 * seconds for seconds, _ in timed]
        figures["p50_ms"].append(float(np.percentile(ours_ms, 50)))
        figures["p99_ms"].append(float(np.percentile(ours_ms, 99)))
        _note_pairs(figures, router, asked["froms"], asked["tos"])
        if not repeat:
            figures["rss_mb"] = [psutil.Process().memory_info().rss / MB]
        search = _Search(graph)
        figures["search_ms"].append(search.median_ms(router, asked, np.array(times_s), task.searches))
    np.savez(
        task.answers,
        times_s=np.array(times_s),
        pair_times_s=router.pair_times_s(asked["froms"], asked["tos"], 0),
        pair_distances_m=router.pair_distances_m(asked["froms"], asked["tos"]),
    )
    figures["customize_ms"] = [
        1_000 * _timed(partial(router.with_slowness, np.full(graph.n_edges, 1.0 + repeat / 10)))[0]
        for repeat in range(1, task.repeats + 1)
    ]
    figures["rss_later_mb"] = [psutil.Process().memory_info().rss / MB]
    return figures


def _note_pairs(figures: dict[str, list[float]], router: HierarchyRouter, froms: Floats, tos: Floats) -> None:
    pairs = [(froms[i : i + 1], tos[i : i + 1]) for i in range(len(froms))]
    pair_s = [_timed(partial(router.pair_times_s, *pair, 0))[0] for pair in pairs]
    route_s = [_timed(partial(router.route, geo.Place(*a[0]), geo.Place(*b[0]), 0))[0] for a, b in pairs]
    figures["pair_p50_ms"].append(1_000 * float(np.median(pair_s)))
    figures["route_p50_ms"].append(1_000 * float(np.median(route_s)))


class _Search:
    """The baseline: one search backwards from the pickup, as far as the last candidate, which it is told."""

    def __init__(self, graph: RoadGraph) -> None:
        n = graph.n_nodes
        self._towards = csr_array((graph.time_s * MS_PER_S, graph.head, graph.first_edge), shape=(n, n)).T.tocsr()

    def median_ms(self, router: HierarchyRouter, asked: dict[str, Floats], times_s: Floats, count: int) -> float:
        """How long does it take?"""
        taken_s = []
        for pickup, answer in zip(asked["pickups"][:count], times_s, strict=False):
            node = router.snap(pickup[None]).nodes
            limit_ms = float(answer[np.isfinite(answer)].max(initial=0.0)) * MS_PER_S
            taken_s.append(_timed(partial(dijkstra, self._towards, indices=node, limit=limit_ms))[0])
        return 1_000 * float(np.median(taken_s))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began_s = time.perf_counter()
    result = work()
    return time.perf_counter() - began_s, result


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(LargeTask(**json.loads(sys.argv[1])))))
