"""What happens around every call, whatever the call: room, deadline, errors, and an end that breaks nobody's stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.admission import AdmissionParams
from hexhail.rpc.interceptor import principal
from hexhail.rpc.status import details_in, domain_error
from tests.rpc.serving import PATIENCE_S, Gate, small_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

SECRET = "the password is swordfish"


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, DomainError, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = domain_error(caught.value)
    assert error is not None, caught.value
    return caught.value.code(), error, caught.value


async def whoami(_request: bytes, _context: Any) -> bytes:
    return str(principal()).encode()


async def crash(_request: bytes, _context: Any) -> bytes:
    raise RuntimeError(SECRET)


async def test_a_servicer_knows_who_calls(tmp_path: Path) -> None:
    async with small_service(tmp_path, unary={"Who": whoami}) as calls:
        assert await calls.ask("Who") == b"rider/r1"


async def test_a_call_without_a_token_does_not_reach_the_servicer(tmp_path: Path) -> None:
    async with small_service(tmp_path, unary={"Who": whoami}) as calls:
        code, error, _ = await refused(calls.ask("Who", token=""))
        assert (code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, Reason.TOKEN_MISSING)


async def test_a_call_that_takes_too_long_is_ended_and_told_so(tmp_path: Path) -> None:
    """Given a caller without a deadline: the service has one of its own."""
    gate = Gate()
    async with small_service(tmp_path, unary={"Wait": gate.wait}, default_deadline_s=0.05) as calls:
        code, error, _ = await refused(calls.ask("Wait", timeout_s=None))
        assert (code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_PASSED)
        assert gate.began.is_set()


async def test_more_calls_than_there_is_room_for_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    gate = Gate()
    async with small_service(tmp_path, unary={"Wait": gate.wait}, admission=AdmissionParams(max_calls=1)) as calls:
        first = asyncio.ensure_future(calls.ask("Wait"))
        await asyncio.wait_for(gate.began.wait(), PATIENCE_S)
        code, error, raw = await refused(calls.ask("Wait"))
        assert (code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED)
        status, retry = status_pb2.Status(), error_details_pb2.RetryInfo()
        status.ParseFromString(details_in(raw.trailing_metadata()) or b"")
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() > 0
        gate.may_end.set()
        assert await first == b"done"
        assert await calls.ask("Wait") == b"done"  # there is room again


async def test_where_calls_take_long_new_work_is_refused_and_what_has_begun_goes_on(tmp_path: Path) -> None:
    """Given a service that was slow with two calls at once: it takes no third that begins something, but one that carries on."""
    gate = Gate()
    admission = AdmissionParams(least_calls=1, slow_s=1e-9, pause_s=0.0, decrease=0.5)
    unary = {"Wait": gate.wait, "Begin": whoami, "CarryOn": whoami}
    async with small_service(tmp_path, unary=unary, beginning={"Begin"}, admission=admission) as calls:
        waiting = [asyncio.ensure_future(calls.ask("Wait")) for _ in range(2)]
        await asyncio.wait_for(gate.began.wait(), PATIENCE_S)
        await calls.ask("CarryOn")

        _, error, _ = await refused(calls.ask("Begin"))
        assert error.reason is Reason.OVERLOADED
        assert await calls.ask("CarryOn") == b"rider/r1"
        gate.may_end.set()
        await asyncio.gather(*waiting)


async def test_room_comes_back_when_a_call_fails(tmp_path: Path) -> None:
    async with small_service(tmp_path, unary={"Crash": crash, "Who": whoami}, admission=AdmissionParams(max_calls=1)) as calls:
        for _ in range(3):
            await refused(calls.ask("Crash"))
        assert await calls.ask("Who") == b"rider/r1"


async def test_a_defect_gives_an_incident_id_and_nothing_away(tmp_path: Path) -> None:
    async with small_service(tmp_path, unary={"Crash": crash}) as calls:
        with capture_logs() as logged:
            code, error, raw = await refused(calls.ask("Crash"))
        assert (code, error.reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)
        (line,) = [line for line in logged if line["event"] == "call failed"]
        assert line["incident_id"] == error.metadata["incident_id"]
        told = f"{raw.details()} {raw.trailing_metadata()} {raw.debug_error_string()}"
        assert "swordfish" not in told
        assert "RuntimeError" not in told


async def test_a_defect_in_a_stream_is_told_like_any(tmp_path: Path) -> None:
    async def breaks(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError(SECRET)

    async with small_service(tmp_path, streams={"Breaks": breaks}) as calls:
        stream = calls.watch("Breaks")
        assert await stream.read() == b"one"
        code, error, raw = await refused(stream.read())
        assert (code, error.reason) == (grpc.StatusCode.INTERNAL, Reason.INTERNAL)
        assert "swordfish" not in str(raw.trailing_metadata())


@pytest.mark.parametrize("names", [{"event": "X"}, {"method": "X"}, {"reason": "X"}, {"level": "X"}, {"self": "X"}])
async def test_an_errors_metadata_may_have_any_names(tmp_path: Path, names: dict[str, str]) -> None:
    error = DomainError(Reason.ILLEGAL_TRANSITION)
    error.metadata = names

    async def refuse(_request: bytes, _context: Any) -> bytes:
        raise error

    async with small_service(tmp_path, unary={"Refuse": refuse}) as calls:
        _, told, _ = await refused(calls.ask("Refuse"))
        assert (told.reason, told.metadata) == (Reason.ILLEGAL_TRANSITION, names)


async def test_a_drain_ends_open_streams_with_ok_and_refuses_new_calls(tmp_path: Path) -> None:
    cleaned = asyncio.Event()

    async def forever(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"hello"
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with small_service(tmp_path, unary={"Who": whoami}, streams={"Forever": forever}) as calls:
        streams = [calls.watch("Forever") for _ in range(3)]
        assert [await stream.read() for stream in streams] == [b"hello"] * 3
        calls.drain.begin()
        for stream in streams:
            assert await asyncio.wait_for(stream.read(), PATIENCE_S) is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
        assert cleaned.is_set()
        for call in (calls.ask("Who"), calls.watch("Forever").read()):
            code, error, _ = await refused(call)
            assert (code, error.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.DRAINING)


async def test_a_drain_lets_a_call_under_way_finish(tmp_path: Path) -> None:
    gate = Gate()
    async with small_service(tmp_path, unary={"Wait": gate.wait}) as calls:
        under_way = asyncio.ensure_future(calls.ask("Wait"))
        await asyncio.wait_for(gate.began.wait(), PATIENCE_S)
        calls.drain.begin()
        stopping = asyncio.ensure_future(calls.server.stop(PATIENCE_S))
        gate.may_end.set()
        assert await under_way == b"done"
        await stopping


async def test_a_caller_who_leaves_frees_its_room(tmp_path: Path) -> None:
    gate, left = Gate(), asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        try:
            return await gate.wait(request, context)
        finally:
            left.set()

    async with small_service(tmp_path, unary={"Wait": wait, "Who": whoami}, admission=AdmissionParams(max_calls=1)) as calls:
        under_way = asyncio.ensure_future(calls.ask("Wait"))
        await asyncio.wait_for(gate.began.wait(), PATIENCE_S)
        under_way.cancel()
        await asyncio.wait_for(left.wait(), PATIENCE_S)
        assert await calls.ask("Who") == b"rider/r1"
