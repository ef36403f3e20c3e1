"""When a stream ends: let go at a drain, at its age, when its token expires; with OK, and with all that was read dealt with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel.randomness import generator
from hexhail.rpc.streams import StreamAge
from hexhail.rpc.tokens import Role, mint_token
from tests.rpc.serving import PATIENCE_S, PREFIX, TOKEN_KEY, Gate, small_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.rpc.serving import Calls

MEBIBYTE = bytes(1024 * 1024)


class Echo:
    """Answers each request after a gate, and says good-bye once there are no more."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.ended = asyncio.Event()

    async def serve(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"hello"
            async for request in requests:
                await self.gate.wait(request, _context)
                yield request
            yield b"bye"
        finally:
            self.ended.set()


async def forever(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    yield b"hello"
    await asyncio.Event().wait()


async def ends_with_ok(stream: Any) -> bool:
    end = await asyncio.wait_for(stream.read(), PATIENCE_S)
    return end is grpc.aio.EOF and await stream.code() is grpc.StatusCode.OK


async def counted(calls: Calls, method: str, code: str) -> int:
    """How many ended so, once none is open: one that was cancelled takes a moment to end."""
    async with asyncio.timeout(PATIENCE_S):
        while calls.counters.streams_open[PREFIX + method]:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0)
    return calls.counters.ended[PREFIX + method, code]


async def test_a_stream_ends_with_ok_at_its_age(tmp_path: Path) -> None:
    async with small_service(tmp_path, streams={"Watch": forever}, stream_age_s=lambda: 0.05) as calls:
        stream = calls.watch("Watch")
        assert await stream.read() == b"hello"
        assert await ends_with_ok(stream)
        assert await counted(calls, "Watch", "OK") == 1


async def test_a_stream_ends_with_ok_before_its_token_expires(tmp_path: Path) -> None:
    """Tokens use real time, in whole seconds: this one has between one and two left."""
    token = mint_token(TOKEN_KEY, Role.RIDER, "r1", 2)
    ends = 0

    async def watch_again_and_again() -> None:
        nonlocal ends
        while True:
            stream = calls.watch("Watch", token=token)
            assert await stream.read() == b"hello"
            assert await ends_with_ok(stream)
            ends += 1

    async with small_service(tmp_path, streams={"Watch": forever}) as calls:
        with pytest.raises(grpc.aio.AioRpcError, match="the token has expired"):
            await watch_again_and_again()
    assert ends > 0


async def test_a_caller_that_closes_its_side_when_told_gets_an_answer_to_all_that_it_sent(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}, goodbye=b"close your side") as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        await stream.write(b"one")
        await asyncio.wait_for(echo.gate.began.wait(), PATIENCE_S)
        calls.drain.begin()
        assert await asyncio.wait_for(stream.read(), PATIENCE_S) == b"close your side"
        await stream.write(b"two")
        await stream.done_writing()
        echo.gate.may_end.set()
        assert [await asyncio.wait_for(stream.read(), PATIENCE_S) for _ in range(3)] == [b"one", b"two", b"bye"]
        assert await ends_with_ok(stream)


async def test_a_caller_that_does_not_close_its_side_is_read_no_more(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}, goodbye=b"close your side", patience_s=0.1) as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        calls.drain.begin()
        assert [await asyncio.wait_for(stream.read(), PATIENCE_S) for _ in range(2)] == [b"close your side", b"bye"]
        assert await ends_with_ok(stream)


async def test_a_goodbye_waits_for_an_answer_that_is_being_sent(tmp_path: Path) -> None:
    """Given a caller that does not read for a while: grpc sends one answer at a time."""
    sending = asyncio.Event()

    async def flood(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield MEBIBYTE
            sending.set()

    async with small_service(tmp_path, exchanges={"Flood": flood}, goodbye=b"close your side") as calls:
        stream = calls.exchange("Flood")
        for _ in range(4):
            await stream.write(b"more")
        await asyncio.wait_for(sending.wait(), PATIENCE_S)
        calls.drain.begin()
        heard = []
        while (message := await asyncio.wait_for(stream.read(), PATIENCE_S)) is not grpc.aio.EOF:
            heard.append(message)
            if message == b"close your side":
                await stream.done_writing()
        assert sorted(map(len, heard)) == [15, *[len(MEBIBYTE)] * 4]
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_of_requests_that_is_let_go_while_it_waits_comes_to_its_own_end(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}) as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        calls.drain.begin()
        assert await asyncio.wait_for(stream.read(), PATIENCE_S) == b"bye"
        assert await ends_with_ok(stream)


async def test_what_was_read_is_dealt_with_before_a_stream_is_let_go(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}) as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        await stream.write(b"one")
        await asyncio.wait_for(echo.gate.began.wait(), PATIENCE_S)
        calls.drain.begin()
        echo.gate.may_end.set()
        assert await asyncio.wait_for(stream.read(), PATIENCE_S) == b"one"
        assert await asyncio.wait_for(stream.read(), PATIENCE_S) == b"bye"
        assert await ends_with_ok(stream)


async def test_a_stream_that_takes_too_long_to_end_is_cut_off_with_ok(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}, patience_s=0.05) as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        await stream.write(b"one")
        await asyncio.wait_for(echo.gate.began.wait(), PATIENCE_S)
        calls.drain.begin()
        assert await ends_with_ok(stream)
        await asyncio.wait_for(echo.ended.wait(), PATIENCE_S)


async def test_a_reader_that_lags_behind_is_told_of_the_end_once_it_reads_on(tmp_path: Path) -> None:
    """Given a stream that waits for its reader, not for news: it must not be cut off in the middle of a message."""
    sent = 0
    waits = asyncio.Event()

    async def flood(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield MEBIBYTE
            waits.set()

    async with small_service(tmp_path, streams={"Flood": flood}) as calls:
        stream = calls.watch("Flood")
        assert await stream.read() == MEBIBYTE
        await asyncio.wait_for(waits.wait(), PATIENCE_S)
        calls.drain.begin()
        read = 1
        while (message := await asyncio.wait_for(stream.read(), PATIENCE_S)) is not grpc.aio.EOF:
            assert message == MEBIBYTE
            read += 1
        assert await stream.code() is grpc.StatusCode.OK
        assert read == sent


async def test_a_caller_that_leaves_is_not_taken_for_one_that_is_let_go(tmp_path: Path) -> None:
    echo = Echo()
    async with small_service(tmp_path, exchanges={"Echo": echo.serve}) as calls:
        stream = calls.exchange("Echo")
        assert await stream.read() == b"hello"
        stream.cancel()
        await asyncio.wait_for(echo.ended.wait(), PATIENCE_S)
        assert await counted(calls, "Echo", "CANCELLED") == 1
        assert calls.counters.ended[PREFIX + "Echo", "OK"] == 0


def test_ages_vary_around_their_mean_and_repeat_with_their_seed() -> None:
    age = StreamAge(600.0)
    drawn = [age.draw_s(generator(7, "ages")) for _ in range(2)]
    assert drawn[0] == drawn[1]
    chance = generator(7, "ages")
    ages = [age.draw_s(chance) for _ in range(1000)]
    assert 480.0 <= min(ages) < 490.0
    assert 710.0 < max(ages) <= 720.0


@given(st.floats(0.01, 1e5), st.floats(0.0, 0.9), st.integers(0, 100))
def test_a_connection_is_given_up_before_its_first_stream_is_of_age(mean_s: float, jitter: float, seed: int) -> None:
    """Whatever grpc adds to the connection's age: a tenth at most."""
    age = StreamAge(mean_s, jitter)
    assert age.connection_age_ms * 1.1 <= max(1000 * age.draw_s(generator(seed, "ages")), 1.1) * (1 + 1e-9)


@pytest.mark.parametrize("wrong", [{"mean_s": 0.0}, {"mean_s": float("nan")}, {"mean_s": 1.0, "jitter": 1.0}], ids=str)
def test_an_age_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not"):
        StreamAge(**wrong)


async def test_counters_tell_how_calls_ended_and_how_many_there_are(tmp_path: Path) -> None:
    gate = Gate()
    async with small_service(tmp_path, unary={"Wait": gate.wait}, streams={"Watch": forever}) as calls:
        stream = calls.watch("Watch")
        assert await stream.read() == b"hello"
        under_way = asyncio.ensure_future(calls.ask("Wait"))
        await asyncio.wait_for(gate.began.wait(), PATIENCE_S)
        assert calls.counters.streams_open == {PREFIX + "Watch": 1}
        assert calls.counters.under_way == {PREFIX + "Wait": 1}
        gate.may_end.set()
        await under_way
        with pytest.raises(grpc.aio.AioRpcError):
            await calls.ask("Wait", token="")
        assert calls.counters.ended[PREFIX + "Wait", "OK"] == 1
        assert calls.counters.ended[PREFIX + "Wait", "UNAUTHENTICATED"] == 1
        calls.drain.begin()
        assert await ends_with_ok(stream)
        assert await counted(calls, "Watch", "OK") == 1
        assert calls.counters.under_way[PREFIX + "Wait"] == 0
