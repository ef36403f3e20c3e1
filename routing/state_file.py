"""A city's traffic in one file: what services drive by now, and all that its learner knows."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from routing.cache_files import write_file
from routing.knowledge import HOURS, Knowledge
from routing.patches import RESOLUTION
from routing.road_files import RoutingFileError
from routing.traffic import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph
    from routing.joining import JoinedRouter
    from routing.patches import Patches
    from routing.traffic import Beliefs

FORMAT: Final = 1

_DAMAGE: Final = (
    ArithmeticError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What is raised where bytes are not what was written: RuntimeError by what seems encrypted, MemoryError by what seems huge."""


@dataclass(frozen=True, slots=True, eq=False)
class TrafficState:
    """The traffic as of a moment.

    streets : digest of the free-flow graph that it is the traffic of
    resolution : of the patches' cells
    number : grows with every state that a learner publishes
    at_ms : as of when
    slowness : float32[n_edges], time relative to free flow
    terminal_s, leg_s_per_m : what trips take besides driving
    knowledge : what it was worked out from, for the learner to go on with
    """

    streets: str
    resolution: int
    number: int
    at_ms: int
    slowness: npt.NDArray[np.float32]
    terminal_s: float
    leg_s_per_m: float
    knowledge: Knowledge


def state_of(base: JoinedRouter, patches: Patches, knowledge: Knowledge, beliefs: Beliefs, number: int) -> TrafficState:
    """The state that says what is thought of the traffic on these streets."""
    return TrafficState(
        base.free_flow.digest(),
        RESOLUTION,
        number,
        knowledge.at_ms,
        beliefs.slowness[patches.of_edge].astype(np.float32),
        beliefs.terminal_s,
        beliefs.leg_s_per_m,
        knowledge,
    )


def write_state(path: Path, state: TrafficState) -> None:
    """Keeps a state: whole or not at all. Raises OSError."""
    known = state.knowledge
    head = {
        "format": FORMAT,
        "streets": state.streets,
        "resolution": state.resolution,
        "number": state.number,
        "at_ms": state.at_ms,
        "terminal_s": state.terminal_s,
        "leg_s_per_m": state.leg_s_per_m,
        "known_at_ms": known.at_ms,
    }
    columns = {
        "head": np.frombuffer(json.dumps(head).encode(), dtype=np.uint8),
        "slowness": state.slowness,
        "hours_free_s": known.hours.free_s,
        "hours_took_s": known.hours.took_s,
        "lately_free_s": known.lately.free_s,
        "lately_took_s": known.lately.took_s,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, partial(np.savez, **columns))  # type: ignore[arg-type]  # its names are the keywords


def read_state(path: Path, graph: RoadGraph, patches: int) -> TrafficState:
    """The state in a file, of these streets (in free flow) and so many patches.

    Raises RoutingFileError for a file of another kind or version, damaged, or of other streets or patches; OSError where it
    cannot be read.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        return _unpacked(path, columns, graph, patches)
    except RoutingFileError:
        raise
    except _DAMAGE as error:
        raise RoutingFileError(path, f"does not hold a city's traffic ({error})") from error


def _unpacked(path: Path, columns: dict[str, npt.NDArray[np.generic]], graph: RoadGraph, patches: int) -> TrafficState:
    head = json.loads(columns["head"].tobytes())
    if head["format"] != FORMAT:
        raise RoutingFileError(path, f"is of format {head['format']}, and this Hexhail reads format {FORMAT}: learn anew")
    if head["streets"] != graph.digest():
        raise RoutingFileError(path, "is the traffic of other streets: learn it anew for these")
    if head["resolution"] != RESOLUTION:
        raise RoutingFileError(path, f"has patches of resolution {head['resolution']}, not {RESOLUTION}: learn anew")
    slowness = _column(columns, "slowness", (graph.n_edges,)).astype(np.float32)
    if not (slowness > 0).all():
        raise ValueError("slowness is not above 0")
    hours = Evidence(_column(columns, "hours_free_s", (HOURS, patches)), _column(columns, "hours_took_s", (HOURS, patches)))
    lately = Evidence(_column(columns, "lately_free_s", (patches,)), _column(columns, "lately_took_s", (patches,)))
    terminal_s, leg_s_per_m = float(head["terminal_s"]), float(head["leg_s_per_m"])
    if not (0 <= terminal_s < math.inf and 0 < leg_s_per_m < math.inf):
        raise ValueError("what trips take besides driving is out of range")
    return TrafficState(
        head["streets"],
        int(head["resolution"]),
        int(head["number"]),
        int(head["at_ms"]),
        slowness,
        terminal_s,
        leg_s_per_m,
        Knowledge(hours, lately, terminal_s, leg_s_per_m, int(head["known_at_ms"])),
    )


def _column(columns: dict[str, npt.NDArray[np.generic]], name: str, shape: tuple[int, ...]) -> Floats:
    column = columns[name]
    if column.shape != shape or column.dtype.kind != "f":
        raise ValueError(f"{name} is {column.dtype}{list(column.shape)}, not float{list(shape)}")
    floats = column.astype(np.float64)
    if not np.isfinite(floats).all() or (floats < 0).any():
        raise ValueError(f"{name} holds values that are not finite or below 0")
    return floats
