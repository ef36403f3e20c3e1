"""All pairs of a small road network: fastest times, and the distances along them. Computed once, shared by all processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.all_pairs import all_pairs
from routing.cache_files import one_at_a_time, write_file
from routing.graph import MM_PER_M, RoadGraph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hexhail.kernel.units import Bools, Floats
    from routing.model import Floats32

MAX_NODES = 10_000
"""Above this a table is too large (2 x 400 MB): such a city needs another router."""

LENGTH_BITS = 29
TIME_BITS = 24
LAYOUT = 1
"""The number of the cache files' format: another format, another name."""
BLOCK = 16
"""Rows that are unpacked at a time: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """All pairs, by destination: row v holds the way from every node to v, so that one pickup's drivers are one row.

    times_s : float32[n_nodes, n_nodes], seconds of free flow from node [.., u] to node [v, ..]; inf where there is no way
    distances_m : float32[n_nodes, n_nodes], metres along that fastest way (the shortest of several as fast)
    """

    times_s: Floats32
    distances_m: Floats32

    def __post_init__(self) -> None:
        n = len(self.times_s)
        for name, table in (("times_s", self.times_s), ("distances_m", self.distances_m)):
            if table.shape != (n, n) or table.dtype != np.float32:
                raise ValueError(f"{name} is {table.dtype}{list(table.shape)}, not float32[{n}, {n}]")


def build_tables(graph: RoadGraph) -> Tables:
    """The tables of a graph.

    Time and length travel in one number: milliseconds above, millimetres in the lower 29 bits, exact in a float64 below
    2**53. So the way found is the fastest, of equally fast ones the shortest, and both sums are read from one result.

    Raises ValueError for a graph too large for a table, or with ways too long for that number (4.6 h or 536 km).
    Source: `all_pairs`; the packing is our choice.
    """
    return _tables_of(_stacked(graph))


def load_tables(graph: RoadGraph, cache_dir: Path | None) -> Tables:
    """The tables of a graph, mapped from the cache folder, where the first process to ask puts them.

    The file is named by the graph's content, written aside and renamed, so that no reader sees half of one. Processes that
    ask at the same time wait for the first. A damaged file is made anew. Without a folder, the tables are computed here.

    Raises as `build_tables`; OSError where the folder cannot be written.
    """
    if cache_dir is None:
        return build_tables(graph)
    path = _path(graph, cache_dir)
    stacked = _mapped(path, graph.n_nodes)
    if stacked is None:
        with one_at_a_time(cache_dir / _streets(graph)):
            stacked = _mapped(path, graph.n_nodes)
            if stacked is None:
                write_file(path, partial(np.save, arr=_stacked(graph)))
                stacked = _mapped(path, graph.n_nodes)
    if stacked is None:
        raise OSError(f"{path} was written and cannot be read")
    return _tables_of(stacked)


def has_tables(graph: RoadGraph, cache_dir: Path) -> bool:
    """Are the tables of a graph in the cache folder, whole?"""
    path = _path(graph, cache_dir)
    return path.is_file() and _mapped(path, graph.n_nodes) is not None


def drop_tables(spared: Sequence[RoadGraph], cache_dir: Path, keep: int) -> int:
    """Removes tables of other states of the traffic on the same streets, but for the newest `keep`; how many?

    Whoever has mapped them goes on with them. Raises OSError where the folder cannot be written.
    """
    streets, spared_paths = _streets(spared[0]), {_path(graph, cache_dir) for graph in spared}
    with one_at_a_time(cache_dir / streets):
        others = [path for path in cache_dir.glob(f"{streets}-*.npy") if path not in spared_paths]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[keep:]:
            path.unlink()
    return len(others[keep:])


def _streets(graph: RoadGraph) -> str:
    return f"tables-{LAYOUT}-{graph.streets_digest()[:12]}"


def _path(graph: RoadGraph, cache_dir: Path) -> Path:
    return cache_dir / f"{_streets(graph)}-{graph.digest()}.npy"


def _stacked(graph: RoadGraph) -> Floats32:
    n = graph.n_nodes
    if n > MAX_NODES:
        raise ValueError(f"the graph has {n} nodes: all-pairs tables hold at most {MAX_NODES}")
    time_ms, length_mm = np.rint(graph.time_s * MS_PER_S), np.rint(graph.length_m * MM_PER_M)
    packed = time_ms * 2.0**LENGTH_BITS + length_mm
    top_speed = float((length_mm / time_ms).max(initial=0.0))
    ways = all_pairs(n, graph.tail(), graph.head, packed)
    stacked = np.empty((2, n, n), dtype=np.float32)
    for begin in range(0, n, BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, n))
        _unpack(ways.towards(rows), stacked[:, rows[0] : rows[-1] + 1], top_speed)
    return stacked


def _unpack(ways: Floats, rows: Floats32, top_speed: float) -> None:
    """The ways' numbers as rows of both tables. Raises ValueError for ways too long for them."""
    whole_ms = np.floor(ways / 2.0**LENGTH_BITS)
    longest_ms = float(whole_ms.max(initial=0.0))
    reached: Bools | bool = True
    if longest_ms == np.inf:
        reached = np.isfinite(whole_ms)
        longest_ms = float(whole_ms.max(initial=0.0, where=reached))
    if longest_ms >= 2**TIME_BITS or longest_ms * top_speed >= 2**LENGTH_BITS:
        raise ValueError(f"the graph has ways of {longest_ms / 3_600_000:.1f} h: too long for all-pairs tables")
    np.divide(whole_ms, MS_PER_S, out=rows[0], casting="same_kind")
    whole_ms *= 2.0**LENGTH_BITS
    np.subtract(ways, whole_ms, out=ways, where=reached)
    np.divide(ways, MM_PER_M, out=rows[1], casting="same_kind")


def _tables_of(stacked: Floats32) -> Tables:
    stacked.setflags(write=False)
    return Tables(stacked[0], stacked[1])


def _mapped(path: Path, n_nodes: int) -> Floats32 | None:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if mapped.shape != (2, n_nodes, n_nodes) or mapped.dtype != np.float32:
        return None
    tables: Floats32 = mapped.view(np.ndarray)
    return tables
