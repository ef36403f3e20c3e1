"""What does a nearby question cost the store? Its commands are recorded once, packed, and sent again over a bare line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.line import Line, packed
from benchmarks.store_baselines import doubling_radii_m, search
from hexhail.kernel.clock import ManualClock, SystemClock
from hexhail.kernel.geo import Place
from hexhail.stores.valkey import open_valkey
from location.__main__ import assemble
from location.model import NearbyQuestion
from location.redis_store import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.stage import Stage
    from hexhail.cities import City
    from hexhail.kernel.units import Floats
    from hexhail.stores.line import Call
    from hexhail.stores.valkey import Valkey

KINDS: Final = ("ring", "doubling", "geosearch")
"""Ours; the radius doubled; and one search of the whole radius."""

_MARK: Final = "bench:mark"

Round = tuple[bytes, int]
"""Commands that are sent together, and how many."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A question as the store sees it, and its answer."""

    rounds: tuple[Round, ...]
    commands: frozenset[str]
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """Questions to be asked of the store in each of three ways. places : float64[n, 2], lat and lng in degrees."""

    redis_url: str
    places: Floats
    recorded: tuple[Recorded, ...]
    count: int
    radius_m: float


class _Recorder:
    """A Valkey that remembers what it is asked."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey
        self.rounds: list[list[Call]] = []

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        self.rounds.append(list(calls))
        return await self._valkey.ask(calls)

    async def aclose(self) -> None:
        await self._valkey.aclose()


async def record(stage: Stage, city: City, places: Floats, count: int, radius_m: float) -> tuple[Recorded, ...]:
    """Has our own finder answer a question at each place, and keeps what it asked.

    The first reading of the occupancy, which a process makes at most once in two seconds, belongs to no question. Raises
    STORE_UNAVAILABLE.
    """
    recorder = _Recorder(open_valkey(stage.redis_url, SCRIPTS))
    try:
        finder = assemble(city, recorder, ManualClock(SystemClock().now_ms())).finder
        limit_ms = round(city.freshness_limit_s * 1000)
        questions = [
            NearbyQuestion(Place(lat, lng), count, radius_m, 0, 0, frozenset(), limit_ms) for lat, lng in places.tolist()
        ]
        await finder.find(questions[0])
        made = []
        for question in questions:
            recorder.rounds.clear()
            answer = await finder.find(question)
            rounds = tuple((packed(calls), len(calls)) for calls in recorder.rounds)
            names = frozenset(str(call[0]).lower() for calls in recorder.rounds for call in calls)
            made.append(Recorded(rounds, names, tuple(driver_id.decode() for driver_id in answer.drivers.driver_ids)))
        return tuple(made)
    finally:
        await recorder.aclose()


def time_questions(trial: Trial) -> Floats:
    """How long does each question take on the wire? float64[3, n], seconds, rows as KINDS.

    All questions in one way, then in the next: mixed, a search of the whole radius would leave cold caches to the one after it.
    """
    taken_s = np.zeros((len(KINDS), len(trial.recorded)))
    with Line(trial.redis_url) as line:
        ways = [_ways(line, trial, row) for row in range(len(trial.recorded))]
        for kind in range(len(KINDS)):
            ways[0][kind]()
            for row, three in enumerate(ways):
                began_s = time.perf_counter()
                three[kind]()
                taken_s[kind, row] = time.perf_counter() - began_s
    return taken_s


def server_times_us(trial: Trial) -> tuple[float, ...]:
    """How long is the server itself at work on a question, on the average, in each way? As KINDS; by its own count."""
    names = [frozenset().union(*(each.commands for each in trial.recorded)), frozenset({"geosearch"}), frozenset({"geosearch"})]
    found = []
    with Line(trial.redis_url) as line:
        ways = [_ways(line, trial, row) for row in range(len(trial.recorded))]
        for kind, commands in enumerate(names):
            line.ask(("CONFIG", "RESETSTAT"))
            for three in ways:
                three[kind]()
            (stats,) = line.ask(("INFO", "commandstats"))
            found.append(sum(_usec(stats.decode(), command) for command in commands) / len(ways))
    return tuple(found)


def baseline_answers(trial: Trial) -> tuple[list[list[str]], list[list[str]]]:
    """Whom does each baseline find, nearest first? A list for each question, of the doubled radius and of the whole one."""
    found: tuple[list[list[str]], list[list[str]]] = ([], [])
    with Line(trial.redis_url) as line:
        for row in range(len(trial.recorded)):
            for answers, way in zip(found, _ways(line, trial, row)[1:], strict=True):
                answers.append([member.decode() for member, _ in way()])
    return found


def cells_read(trial: Trial, cell_prefixes: tuple[str, ...]) -> tuple[list[int], int]:
    """How many sets of cells does the store read for each question, and how many of those in all are of empty cells?"""
    keys: list[list[str]] = []
    with Line(trial.redis_url) as line, Line(trial.redis_url) as witness:
        witness.ask(("MONITOR",))
        for each in trial.recorded:
            for commands, count in each.rounds:
                line.send(commands)
                line.replies(count)
            line.ask(("ECHO", _MARK))
            keys.append(_keys_until_mark(witness, cell_prefixes))
        distinct = sorted({key for some in keys for key in some})
        exist = dict(zip(distinct, line.ask(*(("EXISTS", key) for key in distinct)), strict=True))
    return [len(some) for some in keys], sum(not exist[key] for some in keys for key in some)


def _ways(line: Line, trial: Trial, row: int) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
    """The three ways of one question, packed: what each returns when it is called is the last reply."""
    lat, lng = trial.places[row].tolist()
    rounds = trial.recorded[row].rounds
    doubled = [packed([search(lat, lng, radius_m, trial.count)]) for radius_m in doubling_radii_m(trial.radius_m)]
    whole = packed([search(lat, lng, trial.radius_m, trial.count)])

    def ring() -> Any:
        replies: list[Any] = []
        for commands, count in rounds:
            line.send(commands)
            replies = line.replies(count)
        return replies

    def doubling() -> Any:
        found: Any = []
        for commands in doubled:
            line.send(commands)
            (found,) = line.replies(1)
            if len(found) >= trial.count:
                break
        return found

    def geosearch() -> Any:
        line.send(whole)
        (found,) = line.replies(1)
        return found

    return ring, doubling, geosearch


def _usec(stats: str, command: str) -> float:
    """Microseconds spent on a command, by INFO commandstats."""
    for row in stats.splitlines():
        name, _, figures = row.partition(":")
        if name == f"cmdstat_{command}":
            return float(dict(figure.split("=") for figure in figures.split(","))["usec"])
    return 0.0


def _keys_until_mark(witness: Line, cell_prefixes: tuple[str, ...]) -> list[str]:
    """The keys of cells that scripts have touched, as MONITOR tells it, up to the mark."""
    keys: list[str] = []
    while True:
        (told,) = witness.replies(1)
        words = told.decode(errors="replace")
        if _MARK in words:
            return keys
        if "lua]" in words:
            keys += [word for word in words.split('"')[1::2] if word.startswith(cell_prefixes)]
