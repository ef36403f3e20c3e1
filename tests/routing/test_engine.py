"""A source of an engine's answers, over HTTP on the loopback: what it falls back on, when, and that nothing else waits for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import structlog
from structlog.testing import LogCapture

from hexhail.kernel.clock import ManualClock
from hexhail.kernel.counters import readings
from hexhail.kernel.errors import DomainError
from hexhail.kernel.geo import Place
from routing.breaker import BreakerParams
from routing.crow import CrowParams, CrowRouter
from routing.engine import EngineSource
from routing.engine_params import OsrmParams, ValhallaParams
from routing.engine_replies import Fault, Request
from routing.osrm import OsrmDialect
from routing.sources import FixedSource
from routing.valhalla import ValhallaDialect
from tests.routing.engines import JUNCTIONS, FakeOsrm, FakeValhalla, closed_port, plain, raw, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hexhail.kernel.units import Floats
    from routing.model import Floats32, Router
    from tests.routing.engines import Served

AT = np.array(JUNCTIONS)
NOON_MS = 1_357_059_600_000
LONG_S = 60.0
"""Longer than any test takes."""
SHORT_S = 0.1
FALLBACK = CrowRouter(CrowParams(1.4, (20.0,) * 24, "UTC"))


@pytest.fixture
def osrm() -> Iterator[Served]:
    with served(FakeOsrm()) as engine:
        yield engine


@asynccontextmanager
async def source_at(url: str, clock: ManualClock | None = None, **params: Any) -> AsyncIterator[EngineSource]:
    known = OsrmParams(url, **{"deadline_s": LONG_S, "retry_wait_s": 0.0, **params})
    source = EngineSource("gridport", OsrmDialect(known), known, FixedSource(FALLBACK), clock or ManualClock(0))
    try:
        yield source
    finally:
        await source.aclose()


def there(router: Router) -> Floats32:
    return router.times_s(AT[:1], AT[1:2], NOON_MS)


def why(source: EngineSource) -> dict[str, int]:
    return {str(fault): n for fault, n in source.counters.fell_back.items() if n}


async def test_the_engine_answers_and_is_named(osrm: Served) -> None:
    async with source_at(osrm.url) as source:
        answered = await source.ask(there)

        assert answered.value[0, 0] == pytest.approx(130)
        assert (answered.fell_back, answered.version.startswith("osrm-")) == (False, True)
        assert (source.counters.questions, source.counters.answered, source.counters.requests) == (1, 1, 1)


async def test_valhalla_answers_over_http_as_well() -> None:
    with served(FakeValhalla()) as engine:
        known = ValhallaParams(engine.url, deadline_s=LONG_S)
        source = EngineSource("x", ValhallaDialect(known, "UTC"), known, FixedSource(FALLBACK), ManualClock(0))
        answered = await source.ask(lambda router: (there(router), router.route(Place(*AT[0]), Place(*AT[1]), NOON_MS)))
        await source.aclose()

    times_s, route = answered.value
    assert times_s[0, 0] == pytest.approx(130)
    assert route.duration_s == pytest.approx(130)
    assert not answered.fell_back


async def test_one_connection_serves_many_questions(osrm: Served) -> None:
    ports = set()

    def note(handler: Any) -> None:
        ports.add(handler.client_address[1])
        plain(500)(handler)

    osrm.trick = note
    async with source_at(osrm.url, breaker=BreakerParams(failures=99)) as source:
        for _ in range(5):
            await source.ask(there)

    assert len(ports) == 1


OUTAGES = [
    pytest.param(plain(500, b"oops"), Fault.FAILED, 1, id="500"),
    pytest.param(plain(503, b""), Fault.BUSY, 2, id="503, tried twice"),
    pytest.param(plain(429, b"<html>"), Fault.BUSY, 2, id="429, tried twice"),
    pytest.param(plain(429, b"", ("retry-after", "3600")), Fault.BUSY, 1, id="429, for longer than the deadline"),
    pytest.param(plain(302, b"", ("location", "http://127.0.0.1:1/")), Fault.REDIRECTED, 1, id="a redirect"),
    pytest.param(plain(404, b"no such page"), Fault.UNREADABLE, 1, id="404"),
    pytest.param(plain(200, b"<html>"), Fault.UNREADABLE, 1, id="no JSON"),
    pytest.param(plain(200, b'{"code": "Ok"}'), Fault.UNREADABLE, 1, id="JSON of another shape"),
    pytest.param(plain(200, b"xx", ("content-encoding", "gzip")), Fault.UNREADABLE, 1, id="no gzip"),
    pytest.param(raw(b""), Fault.NO_CONNECTION, 2, id="closed without a word"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), Fault.NO_CONNECTION, 2, id="closed half-way"),
    pytest.param(raw(b"SSH-2.0-OpenSSH\r\n"), Fault.NO_CONNECTION, 2, id="no HTTP"),
]


@pytest.mark.parametrize(("trick", "fault", "requests"), OUTAGES)
async def test_an_engine_that_gives_no_answer_is_replaced_and_the_answer_says_so(
    osrm: Served, trick: Any, fault: Fault, requests: int
) -> None:
    osrm.trick = trick
    async with source_at(osrm.url) as source:
        answered = await source.ask(there)

        assert (answered.fell_back, answered.version) == (True, FALLBACK.version)
        np.testing.assert_array_equal(answered.value, there(FALLBACK))
        assert why(source) == {fault: 1}
        assert (osrm.requests, source.counters.requests, source.counters.retries) == (requests, requests, requests - 1)


async def test_nobody_at_the_address() -> None:
    async with source_at(f"http://127.0.0.1:{closed_port()}") as source:
        assert (await source.ask(there)).fell_back
        assert why(source) == {Fault.NO_CONNECTION: 1}


async def test_what_may_pass_is_tried_again_and_may_succeed(osrm: Served) -> None:
    def busy_once(handler: Any) -> None:
        osrm.trick = None
        plain(503)(handler)

    osrm.trick = busy_once
    async with source_at(osrm.url) as source:
        answered = await source.ask(there)

        assert answered.value[0, 0] == pytest.approx(130)
        assert (answered.fell_back, source.counters.retries) == (False, 1)


@pytest.mark.parametrize("trick", ["silence", "dribble"])
async def test_an_engine_that_never_ends_its_answer_costs_no_more_than_the_deadline(osrm: Served, trick: str) -> None:
    osrm.trick = getattr(osrm, trick)
    async with source_at(osrm.url, deadline_s=SHORT_S) as source:
        answered = await source.ask(there)

        assert answered.fell_back
        assert why(source) == {Fault.LATE: 1}
        assert not osrm.released.is_set()


async def test_the_deadline_is_of_the_question_not_of_each_request(osrm: Served) -> None:
    """Each request would be in time, the question never is."""
    rounds: list[Floats32] = []

    def question(router: Router) -> None:
        if router is FALLBACK:
            return
        while True:
            rounds.append(router.times_s(AT[:1], AT[1:2] + len(rounds) * 1e-5, NOON_MS))

    async with source_at(osrm.url, deadline_s=SHORT_S) as source:
        assert (await source.ask(question)).fell_back
        assert why(source) == {Fault.LATE: 1}


async def test_a_slow_engine_holds_up_nobody_else(osrm: Served) -> None:
    """The loop goes on while the engine is silent: it is this loop that lets the engine speak."""
    osrm.trick = osrm.silence
    async with source_at(osrm.url, attempts=2) as source:
        asking = asyncio.create_task(source.ask(there))
        await asyncio.to_thread(osrm.asked.wait)
        assert not asking.done()
        osrm.trick = None
        osrm.released.set()

        assert not (await asking).fell_back


async def test_questions_do_not_pile_up_threads(osrm: Served) -> None:
    osrm.trick = osrm.silence
    async with source_at(osrm.url, deadline_s=SHORT_S, questions_at_once=2) as source:
        answers = await asyncio.gather(*(source.ask(there) for _ in range(20)))
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("routing-gridport")]

        assert all(answered.fell_back for answered in answers)
        assert len(threads) <= 2
        assert osrm.requests < len(answers)  # whoever's turn had not come by the deadline never asked
        assert sum(why(source).values()) == 20
        assert set(why(source)) <= {Fault.LATE, Fault.CROWDED, Fault.SHUT}


async def test_after_a_late_question_its_thread_is_free_again(osrm: Served) -> None:
    osrm.trick = osrm.silence
    async with source_at(osrm.url, deadline_s=SHORT_S, questions_at_once=1) as source:
        assert (await source.ask(there)).fell_back
        osrm.trick = None
        source._params = OsrmParams(osrm.url, deadline_s=LONG_S)

        assert not (await source.ask(there)).fell_back


async def test_who_is_no_longer_waited_for_neither_speaks_for_the_engine_nor_against_it(osrm: Served) -> None:
    osrm.trick = osrm.silence
    async with source_at(osrm.url, breaker=BreakerParams(failures=1)) as source:
        asking = asyncio.create_task(source.ask(there))
        await asyncio.to_thread(osrm.asked.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        osrm.trick = None

        assert not (await source.ask(there)).fell_back


async def test_the_breakers_whole_life(osrm: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = LogCapture()
    monkeypatch.setattr("routing.engine.log", structlog.wrap_logger(None, [heard], structlog.BoundLogger))
    clock = ManualClock(0)
    async with source_at(osrm.url, clock, breaker=BreakerParams(failures=3, pause_s=10.0)) as source:
        osrm.trick = plain(500)
        for _ in range(3):
            assert (await source.ask(there)).fell_back
        assert osrm.requests == 3

        assert (await source.ask(there)).fell_back  # left alone
        clock.advance(9_999)
        assert (await source.ask(there)).fell_back
        assert osrm.requests == 3

        clock.advance(1)  # one may try, and fails
        assert (await source.ask(there)).fell_back
        assert osrm.requests == 4
        assert (await source.ask(there)).fell_back
        assert osrm.requests == 4

        osrm.trick = None
        clock.advance(10_000)
        assert not (await source.ask(there)).fell_back
        assert not (await source.ask(there)).fell_back

        assert why(source) == {Fault.FAILED: 4, Fault.SHUT: 3}
        assert (source.counters.breaker_opened, source.counters.breaker_closed, source.counters.answered) == (1, 1, 2)
    assert [(entry["log_level"], entry["city"]) for entry in heard.entries] == [("warning", "gridport"), ("info", "gridport")]
    assert heard.entries[0]["last"] == "failed: HTTP 500"


async def test_beside_a_trial_nobody_asks(osrm: Served) -> None:
    clock = ManualClock(0)
    async with source_at(osrm.url, clock, breaker=BreakerParams(failures=1)) as source:
        osrm.trick = plain(500)
        await source.ask(there)
        clock.advance(10_000)
        osrm.trick = osrm.silence
        osrm.asked.clear()
        trial = asyncio.create_task(source.ask(there))
        await asyncio.to_thread(osrm.asked.wait)

        assert (await source.ask(there)).fell_back
        assert why(source) == {Fault.FAILED: 1, Fault.SHUT: 1}
        osrm.trick = None
        osrm.released.set()
        assert not (await trial).fell_back


async def test_a_refusal_falls_back_opens_nothing_and_is_told_once(osrm: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = LogCapture()
    monkeypatch.setattr("routing.engine.log", structlog.wrap_logger(None, [heard], structlog.BoundLogger))
    osrm.trick = plain(400, b'{"code": "TooBig", "message": "Too many table coordinates"}')
    async with source_at(osrm.url, breaker=BreakerParams(failures=2)) as source:
        for _ in range(4):
            assert (await source.ask(there)).fell_back
        assert why(source) == {Fault.REFUSED: 4}
    assert [(entry["log_level"], entry["reason"]) for entry in heard.entries] == [("warning", "TooBig")]


async def test_what_the_engine_calls_unreachable_is_an_answer_and_no_reason_to_fall_back(osrm: Served) -> None:
    async with source_at(osrm.url) as source:
        answered = await source.ask(lambda router: router.times_s(AT[:1], AT[3:], NOON_MS))
        assert np.isinf(answered.value).all()
        assert not answered.fell_back
        with pytest.raises(DomainError):
            await source.ask(lambda router: router.route(Place(*AT[0]), Place(*AT[3]), NOON_MS))
        assert why(source) == {}


async def test_a_bad_question_is_the_askers_and_neither_opens_nor_closes_the_breaker(osrm: Served) -> None:
    nowhere: Floats = np.array([[np.nan, 0.0]])
    clock = ManualClock(0)
    async with source_at(osrm.url, clock, breaker=BreakerParams(failures=1)) as source:
        for _ in range(3):
            with pytest.raises(ValueError, match="not finite"):
                await source.ask(lambda router: router.times_s(nowhere, AT, NOON_MS))
        osrm.trick = plain(500)
        await source.ask(there)
        osrm.trick = None
        clock.advance(10_000)
        with pytest.raises(ValueError, match="not finite"):
            await source.ask(lambda router: router.times_s(nowhere, AT, NOON_MS))

        assert not (await source.ask(there)).fell_back  # the trial is still to be had


async def test_a_large_question_goes_out_a_few_blocks_at_a_time() -> None:
    engine = FakeOsrm(max_table_size=2)
    with served(engine) as osrm:
        at_once, most, lock = 0, 0, threading.Lock()

        def counted(handler: Any) -> None:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            reply = engine.reply(Request("GET", handler.path))
            with lock:
                at_once -= 1
            plain(reply.status, reply.body)(handler)

        osrm.trick = counted
        places = np.resize(AT[:3], (9, 2))
        async with source_at(osrm.url, max_table_size=2, requests_at_once=3) as source:
            answered = await source.ask(lambda router: router.times_s(places, places, NOON_MS))

        assert not answered.fell_back
        assert osrm.requests == 25
        assert 1 <= most <= 3


async def test_one_fault_among_many_blocks_is_the_whole_questions(osrm: Served) -> None:
    def fails_in_the_middle(handler: Any) -> None:
        reply = FakeOsrm().reply(Request("GET", handler.path))
        plain(500 if osrm.requests == 5 else reply.status, reply.body)(handler)

    osrm.trick = fails_in_the_middle
    places = np.resize(AT[:3], (9, 2))
    async with source_at(osrm.url, max_table_size=2) as source:
        answered = await source.ask(lambda router: router.times_s(places, places, NOON_MS))

        assert answered.fell_back
        np.testing.assert_array_equal(answered.value, FALLBACK.times_s(places, places, NOON_MS))


async def test_closing_ends_what_is_under_way_and_leaves_no_thread(osrm: Served) -> None:
    osrm.trick = osrm.silence
    async with source_at(osrm.url) as source:
        asking = asyncio.create_task(source.ask(there))
        await asyncio.to_thread(osrm.asked.wait)
        await source.aclose()

        assert (await asking).fell_back
        assert (await source.ask(there)).fell_back  # whoever asks after the end
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("routing-")]


async def test_what_it_counts_can_be_shown(osrm: Served) -> None:
    async with source_at(osrm.url) as source:
        await source.ask(there)
        shown = {reading.name: reading.values for reading in readings(source.counters)}

    assert shown["questions"] == {"": 1}
    assert set(shown["fell_back"]) == {fault.name for fault in Fault}
