"""How long does it take, by a routing engine over HTTP? One question is answered whole by the engine, or whole by the fallback.

A router for each question, with the question's deadline; a source that runs the questions beside the event loop and turns to the
router in this process where the engine gives no answer. Nothing that an outage leaves open is ever made up. Decision 21.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import structlog

from hexhail.kernel.counters import counted_by, counter
from hexhail.kernel.errors import DomainError, Reason
from routing.approach import matrix_legs, pair_legs, top_speed_mps, whole_distances_m, whole_route, whole_times_s
from routing.breaker import Breaker, Outcome, State
from routing.engine_blocks import cut, halves
from routing.engine_line import Line
from routing.engine_replies import AskForLess, EngineFault, Fault, Gaps, Table
from routing.model import check_pairs, check_places
from routing.sources import Answered, RouterSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.approach import Legs
    from routing.engine_line import Use
    from routing.engine_params import EngineParams
    from routing.engine_replies import Dialect, Reply, Request
    from routing.model import Floats32, Route, Router
    from routing.sources import Loops

    Send = Callable[[Sequence[Request]], list[Reply]]

T = TypeVar("T")

PAIRED = 32
"""So many pairs are asked for as one square table, of which the diagonal is kept."""

_REFUSALS_TOLD = 20

log = structlog.get_logger(__name__)


class EngineRouter:
    """A `Router` for one question: what was asked before in it is not asked again. Blocks; for one thread.

    Its version names the engine's data too, once a reply has said which. Raises EngineFault beside what every router raises:
    where the engine gives no answer, its data change in the middle of the question, or the deadline passes.
    """

    def __init__(self, dialect: Dialect, send: Send, params: EngineParams) -> None:
        """`send` has the replies to some requests, in their order, or raises EngineFault."""
        self._dialect = dialect
        self._send = send
        self._params = params
        self._data = ""
        self.version = dialect.version
        self._departing_ms: int | None = None
        self._known: dict[tuple[object, ...], tuple[Table, Legs]] = {}
        self._known_gaps: dict[bytes, Floats] = {}

    @property
    def top_speed_mps(self) -> float:
        """As the city's file says; nothing faster is passed on."""
        return top_speed_mps(self._params)

    def covers(self, places: Floats) -> Bools:
        """Which of these places are near enough to the engine's network? bool[n]."""
        return self._gaps_m(check_places("places", places)) <= self._params.snap_limit_m

    def times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from each origin to each destination? float32[n, m], seconds."""
        self._departing_ms = depart_ms
        return whole_times_s(*self._matrix(origins, destinations, "times_s"), self._params)

    def distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from each origin to each destination, by the fastest way? float32[n, m], metres.

        At the departure that this question named last, where the engine hears of departures.
        """
        return whole_distances_m(*self._matrix(origins, destinations, "distances_m"), self._params)

    def pair_times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:
        """How long from the i-th origin to the i-th destination? float32[n], seconds."""
        self._departing_ms = depart_ms
        return whole_times_s(*self._pairs(origins, destinations, "times_s"), self._params)

    def pair_distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from the i-th origin to the i-th destination, by the fastest way? float32[n], metres."""
        return whole_distances_m(*self._pairs(origins, destinations, "distances_m"), self._params)

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:
        """By which way does one travel? Raises DomainError NO_ROUTE for an end off the network, or where no way leads."""
        ends = check_places("places", np.array([[origin.lat, origin.lng], [destination.lat, destination.lng]]))
        gap_m = self._gaps_m(ends) if self._dialect.gaps_first else np.zeros(2)
        if (gap_m > self._params.snap_limit_m).any():
            raise DomainError(Reason.NO_ROUTE, "a place is off the road network", snap_limit_m=self._params.snap_limit_m)
        (reply,) = self._send([self._dialect.ask_way(ends, depart_ms)])
        try:
            way = self._dialect.read_way(reply, ends)
        except AskForLess:
            raise DomainError(Reason.NO_ROUTE) from None
        self._see_data(way.data)
        return whole_route(ends, way, gap_m if way.gap_m is None else way.gap_m, self._params)

    def _matrix(self, origins: Floats, destinations: Floats, what: str) -> tuple[Floats, Legs]:
        froms, tos = check_places("origins", origins), check_places("destinations", destinations)
        key = self._key("matrix", froms, tos)
        if key not in self._known:
            table, from_gap_m, to_gap_m = self._table([(froms, tos)])[0]
            self._known[key] = table, matrix_legs(froms, tos, from_gap_m, to_gap_m)
        table, legs = self._known[key]
        return getattr(table, what), legs

    def _pairs(self, origins: Floats, destinations: Floats, what: str) -> tuple[Floats, Legs]:
        """As squares of some pairs each, of which the diagonal is kept: many-to-many searches grow with the sides."""
        froms, tos = check_pairs(origins, destinations)
        key = self._key("pairs", froms, tos)
        if key not in self._known:
            size = max(min(PAIRED, self._dialect.max_side, int(self._dialect.max_pairs**0.5)), 1)
            parts = [slice(i, i + size) for i in range(0, len(froms), size)]
            found = self._table([(froms[part], tos[part]) for part in parts])
            empty = np.empty(0)
            table = Table(
                np.concatenate([empty, *(np.diagonal(one.times_s) for one, _, _ in found)]),
                np.concatenate([empty, *(np.diagonal(one.distances_m) for one, _, _ in found)]),
            )
            from_gap_m, to_gap_m = (np.concatenate([empty, *(one[side] for one in found)]) for side in (1, 2))
            self._known[key] = table, pair_legs(froms, tos, from_gap_m, to_gap_m)
        table, legs = self._known[key]
        return getattr(table, what), legs

    def _key(self, what: str, froms: Floats, tos: Floats) -> tuple[object, ...]:
        departing_ms = self._departing_ms if self._dialect.hears_departure else None
        return what, froms.tobytes(), tos.tobytes(), departing_ms

    def _table(self, groups: Sequence[tuple[Floats, Floats]]) -> list[tuple[Table, Floats, Floats]]:
        """The matrix of each group of origins and destinations, and how far these are from the network; all in one go."""
        dialect = self._dialect
        made = [_Unfinished(froms, tos) for froms, tos in groups]
        if dialect.gaps_first:
            self._meet([one for one in made if one.times_s.size])
        pending: list[tuple[_Unfinished, Ints, Ints]] = [
            (one, *block) for one in made for block in self._blocks(one.rows, one.columns)
        ]
        while pending:
            asked, pending = pending, []
            requests = [dialect.ask_table(one.froms[i], one.tos[j], self._departing_ms) for one, i, j in asked]
            for (one, rows, columns), reply in zip(asked, self._send(requests), strict=True):
                try:
                    table = dialect.read_table(reply, one.froms[rows], one.tos[columns])
                except AskForLess:
                    if len(rows) * len(columns) > 1:
                        parts = halves(len(rows), len(columns))
                        pending += [(one, *block) for i, j in parts for block in self._blocks(rows[i], columns[j])]
                    continue
                self._see_data(table.data)
                one.take(rows, columns, table)
        return [(Table(one.times_s, one.distances_m), one.from_gap_m, one.to_gap_m) for one in made]

    def _meet(self, made: Sequence[_Unfinished]) -> None:
        """Has told how far everybody is from the network, all at once: the engine is to be asked about those near it only."""
        self._gaps_m(np.concatenate([np.empty((0, 2)), *(side for one in made for side in (one.froms, one.tos))]))
        limit_m = self._params.snap_limit_m
        for one in made:
            one.from_gap_m, one.to_gap_m = self._gaps_m(one.froms), self._gaps_m(one.tos)
            one.rows, one.columns = np.flatnonzero(one.from_gap_m <= limit_m), np.flatnonzero(one.to_gap_m <= limit_m)

    def _blocks(self, rows: Ints, columns: Ints) -> list[tuple[Ints, Ints]]:
        dialect = self._dialect
        blocks = cut(len(rows), len(columns), dialect.max_side, dialect.max_pairs, dialect.hears_departure)
        return [(rows[i], columns[j]) for i, j in blocks]

    def _gaps_m(self, places: Floats) -> Floats:
        """How far is each place from the network? float64[n], inf where the engine knows no road near by."""
        keys = [place.tobytes() for place in places]
        unknown = {key: place for key, place in zip(keys, places, strict=True) if key not in self._known_gaps}
        wanted, size = list(unknown.values()), self._dialect.max_places
        pending = [np.array(wanted[i : i + size]) for i in range(0, len(wanted), size)]
        while pending:
            asked, pending = pending, []
            replies = self._send([self._dialect.ask_gaps(some) for some in asked])
            for some, reply in zip(asked, replies, strict=True):
                try:
                    gaps = self._dialect.read_gaps(reply, some)
                except AskForLess:
                    gaps = Gaps(np.full(1, np.inf))
                    if len(some) > 1:
                        pending += [some[: len(some) // 2], some[len(some) // 2 :]]
                        continue
                self._see_data(gaps.data)
                self._known_gaps.update(zip((place.tobytes() for place in some), gaps.gap_m.tolist(), strict=True))
        return np.array([self._known_gaps[key] for key in keys], dtype=np.float64)

    def _see_data(self, data: str) -> None:
        if not data or data == self._data:
            return
        if self._data:
            raise EngineFault(Fault.CHANGED)
        self._data = data
        self.version = f"{self._dialect.version}-{hashlib.blake2b(data.encode(), digest_size=4).hexdigest()}"


class _Unfinished:
    """A matrix of which some blocks are there: what no block brings stays `inf`. Rows and columns are those to ask about."""

    def __init__(self, froms: Floats, tos: Floats) -> None:
        self.froms, self.tos = froms, tos
        self.times_s = np.full((len(froms), len(tos)), np.inf)
        self.distances_m = self.times_s.copy()
        self.from_gap_m, self.to_gap_m = np.full(len(froms), np.inf), np.full(len(tos), np.inf)
        self.rows, self.columns = np.arange(len(froms)), np.arange(len(tos))

    def take(self, rows: Ints, columns: Ints, table: Table) -> None:
        """Puts a block where it belongs."""
        self.times_s[np.ix_(rows, columns)] = table.times_s
        self.distances_m[np.ix_(rows, columns)] = table.distances_m
        if table.origin_gap_m is not None and table.destination_gap_m is not None:
            self.from_gap_m[rows] = table.origin_gap_m
            self.to_gap_m[columns] = table.destination_gap_m


@dataclass(slots=True)
class EngineCounters:
    """What a source of an engine's answers did so far; it only grows."""

    questions: int = counter("Questions about travel times.")
    answered: int = counter("Questions that the engine answered.")
    fell_back: Counter[Fault] = field(
        default_factory=Counter, metadata=counted_by("reason", Fault, "Questions that the fallback answered.")
    )
    requests: int = counter("Requests to the engine, repeated ones included.")
    retries: int = counter("Requests that were repeated.")
    breaker_opened: int = counter("Times that the breaker opened: the engine was left alone.")
    breaker_closed: int = counter("Times that the breaker closed again.")


class EngineSource(RouterSource):
    """Travel times of an engine, and of the fallback where it gives none; for one event loop.

    Each question runs in a thread, so that it may block; no more of them than the parameters allow, those included for which
    nobody waits any more.
    """

    def __init__(self, city: str, dialect: Dialect, params: EngineParams, fallback: RouterSource, clock: Clock) -> None:
        self._city = city
        self._dialect = dialect
        self._params = params
        self._fallback = fallback
        self._clock = clock
        self.counters = EngineCounters()
        self._line = Line(params, self.counters)
        self._closed = False
        self._breaker = Breaker(params.breaker)
        self._slots = asyncio.Semaphore(params.questions_at_once)
        self._threads = ThreadPoolExecutor(params.questions_at_once, thread_name_prefix=f"routing-{city}")
        self._refusals: set[str] = set()

    def loops(self) -> Loops:
        """The fallback's."""
        return self._fallback.loops()

    async def aclose(self) -> None:
        """Gives up what is under way, and closes the connections and the fallback."""
        self._closed = True
        await asyncio.to_thread(self._line.close)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        await self._fallback.aclose()

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does the engine answer, by the deadline? Else the fallback, marked so. The question runs in another thread.

        Raises what the question raises of itself (ValueError, NO_ROUTE).
        """
        self.counters.questions += 1
        try:
            answered = await self._ask_engine(question)
        except EngineFault as fault:
            self.counters.fell_back[fault.fault] += 1
            self._tell(fault)
        else:
            self.counters.answered += 1
            return answered
        return replace(await self._fallback.ask(question), fell_back=True)

    async def _ask_engine(self, question: Callable[[Router], T]) -> Answered[T]:
        use = self._line.use(self._params.deadline_s)
        self._check_open(use)
        try:
            async with asyncio.timeout(use.left_s()):
                await self._slots.acquire()
        except TimeoutError:
            raise EngineFault(Fault.CROWDED) from None
        try:
            self._check_open(use)
            self._breaker = self._breaker.entered(self._clock.now_ms())
            term = self._breaker.term
            router = EngineRouter(self._dialect, use.send, self._params)
            running = asyncio.get_running_loop().run_in_executor(self._threads, question, router)
        except BaseException:
            self._slots.release()
            raise
        running.add_done_callback(self._free_slot)
        outcome, failed = Outcome.UNKNOWN, None
        try:
            answered = Answered(await _within(use, running), router.version)
        except EngineFault as fault:
            outcome, failed = (Outcome.FAILED, fault) if fault.fault.is_outage else (Outcome.ANSWERED, None)
            raise
        except Exception:  # the question's own, after the engine had answered or before it was asked
            outcome = Outcome.ANSWERED if use.replies else Outcome.UNKNOWN
            raise
        else:
            outcome = Outcome.ANSWERED if use.replies else Outcome.UNKNOWN
            return answered
        finally:
            use.end()
            self._report(outcome, term, failed)

    def _check_open(self, use: Use) -> None:
        if self._closed or not self._breaker.lets_in(self._clock.now_ms()):
            raise EngineFault(Fault.SHUT)
        if not use.left_s():
            raise EngineFault(Fault.CROWDED)

    def _free_slot(self, running: asyncio.Future[Any]) -> None:
        self._slots.release()
        if not running.cancelled():
            running.exception()  # taken notice of, though nobody may have waited for it

    def _report(self, outcome: Outcome, term: int, failed: EngineFault | None) -> None:
        before = self._breaker
        self._breaker = before.reported(outcome, term, self._clock.now_ms())
        if before.state is State.CLOSED and self._breaker.state is State.OPEN:
            self.counters.breaker_opened += 1
            log.warning(
                "a routing engine is left alone, the fallback answers",
                city=self._city,
                engine=self._dialect.version,
                failures=self._params.breaker.failures,
                last=str(failed),
            )
        elif before.state is State.HALF_OPEN and self._breaker.state is State.CLOSED:
            self.counters.breaker_closed += 1
            log.info("a routing engine answers again", city=self._city, engine=self._dialect.version)

    def _tell(self, fault: EngineFault) -> None:
        """A refusal speaks of the city's file, as a rule, or of the engine's limits: said once each."""
        if fault.fault is Fault.REFUSED and fault.detail not in self._refusals and len(self._refusals) < _REFUSALS_TOLD:
            self._refusals.add(fault.detail)
            log.warning("a routing engine refuses questions", city=self._city, engine=self._dialect.version, reason=fault.detail)


async def _within(use: Use, running: asyncio.Future[T]) -> T:
    """What comes of it by the deadline. Raises EngineFault after it, and lets it run on."""
    done, _ = await asyncio.wait({running}, timeout=use.left_s())
    if not done:
        raise EngineFault(Fault.LATE)
    return running.result()
