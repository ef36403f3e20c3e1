"""A service ends streams whenever it likes, with OK: apps open them again, lose nothing, and count no error."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import pytest

from hexhail.client import Channels, DriverApp, FixAckView, FixReport, Role, RpcError, SessionView
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.randomness import generator
from hexhail.rpc.server import Shell
from hexhail.rpc.streams import StreamAge
from tests.client.fakes import Script, fake_city, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIXES = 2000
HERE = Place(40.5, -74.0)


def short_lived() -> Shell:
    """Streams of 50 to 150 ms, over connections of 45 ms."""
    return Shell(stream_age=StreamAge(0.1, 0.5), chance=generator(3, "ages"))


def fix(sequence: int) -> FixReport:
    return FixReport(sequence, 1000 * sequence, HERE)


async def test_a_driver_whose_streams_end_by_age_loses_no_fix_and_sees_no_error() -> None:
    """Given a driver that reports without a pause, as hard as it gets: each fix is taken once, sent once, acknowledged once."""
    waiting = deque(range(1, FIXES + 1))
    acknowledged: list[int] = []
    sessions = 0

    async def reports() -> AsyncIterator[FixReport]:
        while waiting:
            yield fix(waiting.popleft())
            await asyncio.sleep(0)

    async with fake_city(Script(), short_lived) as addresses, Channels(addresses) as channels:
        app = DriverApp(channels, "gridport", "fleet.d1", token(Role.DRIVER, "fleet.d1"))
        while waiting:
            async for answer in app.stream_fixes(reports()):
                if isinstance(answer, SessionView):
                    sessions += 1
                elif isinstance(answer, FixAckView):
                    acknowledged.append(answer.up_to_sequence)
        await channels.counts.settled()
        assert acknowledged == list(range(1, FIXES + 1))
        assert sessions > 1
        assert channels.counts.ok == sessions
        assert channels.counts.rpc_errors == {}


async def test_a_driver_that_waits_for_its_next_fix_is_let_go_as_well() -> None:
    """Given somebody parked, with nothing to report until long after the stream has come of age."""
    cancelled = asyncio.Event()

    async def reports() -> AsyncIterator[FixReport]:
        yield fix(1)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with fake_city(Script(), short_lived) as addresses, Channels(addresses) as channels:
        app = DriverApp(channels, "gridport", "fleet.d1", token(Role.DRIVER, "fleet.d1"))
        answers = [answer async for answer in app.stream_fixes(reports())]
        assert answers == [SessionView(7, 4000, 0), FixAckView(1, 1, {}, 0)]
        assert cancelled.is_set()
        await channels.counts.settled()
        assert (channels.counts.ok, channels.counts.rpc_errors) == (1, {})


async def test_a_refusal_is_heard_although_a_message_was_on_its_way() -> None:
    """Given a service that refuses a stream in the middle of its messages: its reason comes through, every time."""
    script = Script()
    async with fake_city(script) as addresses, Channels(addresses) as channels:
        app = DriverApp(channels, "gridport", "fleet.d1", token(Role.DRIVER, "fleet.d1"))

        async def reports() -> AsyncIterator[FixReport]:
            for sequence in range(1, 50):
                if sequence == 3:
                    script.refuse["StreamFixes"] = [DomainError(Reason.INVALID_FIELD)]
                yield fix(sequence)
                await asyncio.sleep(0)

        heard = []
        for _ in range(30):
            with pytest.raises((DomainError, RpcError)) as caught:
                async for _ in app.stream_fixes(reports()):
                    pass
            heard.append(caught.value.reason if isinstance(caught.value, DomainError) else str(caught.value))
        assert set(heard) == {Reason.INVALID_FIELD}
        await channels.counts.settled()
        assert channels.counts.rpc_errors == {"INVALID_ARGUMENT": 30}
