"""One file per city: a road graph as it lies in memory, ready in a fraction of a second.

Shape, all numbers little-endian: 8 bytes MAGIC; uint32 FORMAT; uint32 length of the head; uint64 length of the whole file;
16 bytes blake2b of all that follows; the head, JSON in UTF-8 (`columns`: name, type and number of values of each, in order;
`report`: what its import left out); then the columns, one after another. Lengths are whole millimetres, times whole
milliseconds, bends degrees times ten million.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.bends import Bends
from routing.cache_files import write_file
from routing.graph import MM_PER_M, RoadGraph
from routing.road_files import GraphReport, RoutingFileError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt

    from hexhail.kernel.units import Floats

MAGIC: Final = b"HEXROADS"
FORMAT: Final = 1
SUFFIX: Final = ".hexroads"
_FRONT: Final = struct.Struct("<8sIIQ16s")
_TYPES: Final = {
    "lat": "<f8",
    "lng": "<f8",
    "first_edge": "<i4",
    "head": "<i4",
    "length_mm": "<u4",
    "time_ms": "<u4",
    "bend_first": "<i4",
    "bend_lat_e7": "<i4",
    "bend_lng_e7": "<i4",
}
_BENDS: Final = ("bend_first", "bend_lat_e7", "bend_lng_e7")


def write_graph_file(path: Path, graph: RoadGraph, report: GraphReport) -> None:
    """Keeps a graph and its report in one file. Written aside and renamed: nobody ever reads half of one.

    Raises ValueError for an edge of more than 4,294 km or 49 days; OSError where the folder cannot be written.
    """
    columns: dict[str, npt.NDArray[np.generic]] = {
        "lat": graph.lat,
        "lng": graph.lng,
        "first_edge": graph.first_edge,
        "head": graph.head,
        "length_mm": _whole("length_m", graph.length_m, MM_PER_M),
        "time_ms": _whole("time_s", graph.time_s, MS_PER_S),
    }
    if graph.bends is not None:
        columns |= {"bend_first": graph.bends.first, "bend_lat_e7": graph.bends.lat_e7, "bend_lng_e7": graph.bends.lng_e7}
    parts = [np.ascontiguousarray(column, dtype=_TYPES[name]).tobytes() for name, column in columns.items()]
    named = [[name, _TYPES[name], len(column)] for name, column in columns.items()]
    head = json.dumps({"columns": named, "report": asdict(report)}).encode()
    body = b"".join((head, *parts))
    front = _FRONT.pack(MAGIC, FORMAT, len(head), _FRONT.size + len(body), _digest(body))
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: BinaryIO) -> None:
        file.write(front)
        file.write(body)
        os.fchmod(file.fileno(), 0o666 & ~_umask())

    write_file(path, write)


def read_graph_file(path: Path) -> tuple[RoadGraph, GraphReport]:
    """The graph of such a file, and the report of its import.

    Raises RoutingFileError for a file of another kind or version, one cut short, or damaged; OSError where it cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise RoutingFileError(path, "is not a Hexhail road file")
    if len(content) < _FRONT.size:
        raise RoutingFileError(path, f"is cut short: {len(content)} bytes, not even the {_FRONT.size} of the front")
    _, version, n_head, n_whole, digest = _FRONT.unpack_from(content)
    if version != FORMAT:
        raise RoutingFileError(path, f"is of format {version}, and this Hexhail reads format {FORMAT}: import its map again")
    if len(content) < n_whole:
        raise RoutingFileError(path, f"is cut short: {len(content):,} bytes of {n_whole:,}")
    body = memoryview(content)[_FRONT.size :]
    if len(content) > n_whole or _digest(body) != digest:
        raise RoutingFileError(path, "is damaged: its content is not what was written; import its map again")
    try:
        return _unpacked(bytes(body[:n_head]), body[n_head:])
    except (ValueError, KeyError, TypeError) as error:
        raise RoutingFileError(path, f"does not hold a road graph ({error})") from error


def _unpacked(head: bytes, body: memoryview) -> tuple[RoadGraph, GraphReport]:
    described = json.loads(head)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    at = 0
    for name, kind, count in described["columns"]:
        if _TYPES.get(name) != kind:
            raise ValueError(f"column {name} of {kind} is not known")
        columns[name] = np.frombuffer(body, dtype=kind, count=count, offset=at)
        at += columns[name].nbytes
    bends = Bends(*(columns[name] for name in _BENDS)) if "bend_first" in columns else None  # type: ignore[arg-type]
    graph = RoadGraph(
        columns["lat"],  # type: ignore[arg-type]
        columns["lng"],  # type: ignore[arg-type]
        columns["first_edge"],  # type: ignore[arg-type]
        columns["head"],  # type: ignore[arg-type]
        np.asarray(columns["length_mm"], dtype=np.float64) / MM_PER_M,
        np.asarray(columns["time_ms"], dtype=np.float64) / MS_PER_S,
        bends,
    )
    return graph, GraphReport(**described["report"])


def _whole(name: str, column: Floats, per_unit: int) -> Floats:
    whole = np.rint(column * per_unit)
    if (whole >= 2**32).any():
        raise ValueError(f"{name} holds values too large for a road file")
    return whole


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
