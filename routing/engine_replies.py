"""What is asked of a routing engine, and what it answers, in our own words. All that it says is judged; nothing is guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hexhail.kernel import geo

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats

GET, POST = "GET", "POST"
_NUMBERS = {int, float}
_CELLS = {int, float, type(None)}


class Fault(StrEnum):
    """Why an engine gave no answer."""

    SHUT = "shut"
    """Nobody asked it: it had failed too often."""
    CROWDED = "crowded"
    """Nobody asked it: too many questions were under way."""
    LATE = "late"
    """The deadline passed."""
    NO_CONNECTION = "no_connection"
    """It cannot be reached, or the connection broke."""
    BUSY = "busy"
    """It says that it has too much to do, or is not ready (HTTP 429, 502, 503, 504)."""
    FAILED = "failed"
    """It says that it failed (any other HTTP 5xx)."""
    REDIRECTED = "redirected"
    """It sends us elsewhere: we go where the city's file says, and nowhere else."""
    UNREADABLE = "unreadable"
    """What it says is not what its protocol has."""
    REFUSED = "refused"
    """It is well, and will not answer this question."""
    CHANGED = "changed"
    """Its data were replaced in the middle of the question."""

    @property
    def is_outage(self) -> bool:
        """Does this speak against the engine, not against the question?"""
        return self not in {Fault.SHUT, Fault.CROWDED, Fault.REFUSED, Fault.CHANGED}

    @property
    def may_pass(self) -> bool:
        """May the same request succeed a moment later?"""
        return self in {Fault.NO_CONNECTION, Fault.BUSY}


class EngineFault(Exception):
    """An engine gave no answer. `detail` holds codes and counts, never coordinates.

    retry_after_s : how long it wants to be left alone, 0 where it did not say
    """

    def __init__(self, fault: Fault, detail: str = "", retry_after_s: float = 0.0) -> None:
        self.fault = fault
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(f"{fault}: {detail}" if detail else str(fault))


class AskForLess(Exception):
    """The engine refuses a request for the sake of one place or pair in it: the others are to be asked without it.

    Of a request for one pair, it says that the pair cannot be travelled.
    """


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is path and query, to be put behind the engine's address; `body` is JSON, or empty."""

    method: str
    target: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: HTTP status and body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Ways between places as the engine has them: from where origins meet its network to where destinations do.

    times_s, distances_m : float64[n, m]; inf where no way leads
    origin_gap_m, destination_gap_m : float64[n], float64[m], from a place to its network; None where the reply has none
    data : what names the engine's data; empty where it does not say
    """

    times_s: Floats
    distances_m: Floats
    origin_gap_m: Floats | None = None
    destination_gap_m: Floats | None = None
    data: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """How far places lie from the engine's network: float64[n], metres, inf where it found none near by."""

    gap_m: Floats
    data: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way on the engine's network.

    places : float64[k, 2], k >= 1
    times_s, lengths_m : float64[k - 1], of the steps between
    gap_m : float64[2], from the origin to the network and from it to the destination; None where the reply has none
    """

    places: Floats
    times_s: Floats
    lengths_m: Floats
    gap_m: Floats | None = None
    data: str = ""


class Dialect(Protocol):
    """How one kind of engine is asked and understood. Pure: requests out, replies in.

    Readers raise EngineFault (UNREADABLE, REFUSED) and AskForLess.
    """

    version: str
    """Names the engine and all that its answers depend on, as far as the city's file says it."""
    max_side: int
    """How many origins, or destinations, one request may have."""
    max_pairs: int
    """How many pairs."""
    hears_departure: bool
    """Answers depend on when one departs; a request must not have more origins than destinations then."""
    gaps_first: bool
    """Tables and ways do not tell how far a place was moved: `gaps` does, and has to be asked before."""
    max_places: int
    """How many places one request for gaps may have."""

    def ask_gaps(self, places: Floats) -> Request:
        """How far are these places from the network?"""
        ...

    def read_gaps(self, reply: Reply, places: Floats) -> Gaps:
        """What does it say?"""
        ...

    def ask_table(self, origins: Floats, destinations: Floats, depart_ms: int | None) -> Request:
        """How long, and how far, from each origin to each destination? None for no time in particular."""
        ...

    def read_table(self, reply: Reply, origins: Floats, destinations: Floats) -> Table:
        """What does it say?"""
        ...

    def ask_way(self, ends: Floats, depart_ms: int) -> Request:
        """By which way from the first of these two places to the second?"""
        ...

    def read_way(self, reply: Reply, ends: Floats) -> Way:
        """What does it say? Raises AskForLess where no way leads."""
        ...


def unreadable(detail: str) -> EngineFault:
    """The fault of a reply that is not what the protocol has."""
    return EngineFault(Fault.UNREADABLE, detail)


def read_json(reply: Reply) -> Any:
    """The document of a reply. Raises EngineFault where it is none."""
    try:
        return json.loads(reply.body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise unreadable(f"HTTP {reply.status}, {len(reply.body)} bytes that are no JSON") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def member(document: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """What an object of a document holds at `key`. Raises EngineFault where it is no object, or holds nothing of this kind."""
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise unreadable(f"{key} is missing, or of another kind")
    return value


def number(document: Any, key: str) -> float:
    """A number of a document, finite and not below 0. Raises EngineFault."""
    return float(numbers([member(document, key, (int, float))], 1, key)[0])


def numbers(values: Any, n: int, key: str) -> Floats:
    """A list of n numbers, finite and not below 0, as float64[n]. Raises EngineFault."""
    if not isinstance(values, list) or len(values) != n or not set(map(type, values)) <= _NUMBERS:
        raise unreadable(f"{key} is no list of {n} numbers")
    return _floats(values, key)


def cells(rows: Any, n: int, m: int, key: str) -> Floats:
    """A list of n lists of m numbers or nulls, as float64[n, m] with inf for null. Raises EngineFault."""
    if not isinstance(rows, list) or len(rows) != n or not all(isinstance(row, list) and len(row) == m for row in rows):
        raise unreadable(f"{key} is no matrix of {n} rows and {m} columns")
    if not set().union(*(map(type, row) for row in rows)) <= _CELLS:
        raise unreadable(f"{key} holds something that is neither number nor null")
    matrix = _floats(rows, key).reshape(n, m)
    matrix[np.isnan(matrix)] = np.inf
    return matrix


def _floats(values: list[Any], key: str) -> Floats:
    """The same numbers; nan for null."""
    try:
        floats = np.array(values, dtype=np.float64)
    except OverflowError:
        raise unreadable(f"{key} holds a number beyond all measure") from None
    if ((floats < 0) | np.isinf(floats)).any():
        raise unreadable(f"{key} holds a number below 0 or beyond all measure")
    return floats


def points_of(pairs: list[list[Any]], key: str) -> Floats:
    """Pairs of latitude and longitude as float64[n, 2], degrees. Raises EngineFault where one is no point on the globe."""
    if not set().union(*(map(type, pair) for pair in pairs)) <= _NUMBERS:
        raise unreadable(f"{key} hold a point that is none")
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    if not (np.abs(points) <= (90.0, 180.0)).all():
        raise unreadable(f"{key} hold a point that is not on the globe")
    return points


def step_lengths_m(places: Floats) -> Floats:
    """How long is each step of a line, by the great circle? float64[k - 1], metres."""
    return geo.distances_m(places[:-1, 0], places[:-1, 1], places[1:, 0], places[1:, 1])


def spread(total: float, weights: Floats) -> Floats:
    """`total` dealt out by weights (float64[k], >= 0), evenly where all are 0. Sums to the total; float64[k]."""
    if not len(weights):
        return weights
    whole = weights.sum()
    return total * (weights / whole) if whole > 0 else np.full(len(weights), total / len(weights))
