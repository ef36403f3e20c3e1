"""What every reader of a road file says of it: what it left out, or why it cannot be used. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RoutingFileError(ValueError):
    """A road file cannot be used: which one, and what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What a loader kept and what it left out.

    length_m : of all edges kept, metres
    nodes_dropped, edges_dropped, dropped_m : outside the largest strongly connected component
    parallel_dropped : slower twins of an edge between the same two nodes
    loops_dropped : edges that lead to their own tail
    slowed : edges (in OpenStreetMap files: ways) whose speed was above MAX_SPEED_KMH

    Of OpenStreetMap files, which are split at junctions here; there, nodes and edges dropped are points and their connections:
    ways : streets for cars
    ways_closed : roads that cars or taxis may not use
    points_joined : points that are no junctions, and became part of an edge
    points_added : points set into edges, for loops, twins and very long streets
    points_missing : points that the ways name and the file lacks; the ways are cut there
    barriers : bollards and the like; the ways are cut there
    """

    nodes: int
    edges: int
    length_m: float = 0.0
    nodes_dropped: int = 0
    edges_dropped: int = 0
    dropped_m: float = 0.0
    parallel_dropped: int = 0
    loops_dropped: int = 0
    slowed: int = 0
    ways: int = 0
    ways_closed: int = 0
    points_joined: int = 0
    points_added: int = 0
    points_missing: int = 0
    barriers: int = 0
