"""One interceptor counts how every call ended, with no exclusions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hexhail.client import Addresses, Channels, DriverApp, RiderApp, Role, RpcError
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from tests.client.fakes import Script, fake_city, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STOPS = (Place(40.5, -74.0), Place(40.51, -74.01))


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def channels(script: Script) -> AsyncIterator[Channels]:
    async with fake_city(script) as addresses, Channels(addresses) as channels:
        yield channels


def rider(channels: Channels) -> RiderApp:
    return RiderApp(channels, "gridport", "r1", token(Role.RIDER, "r1"))


def driver(channels: Channels, subject: str = "fleet.d1") -> DriverApp:
    return DriverApp(channels, "gridport", subject, token(Role.DRIVER, subject))


async def test_a_call_that_succeeds_is_ok(channels: Channels) -> None:
    await driver(channels).go_online()
    await channels.counts.settled()
    assert (channels.counts.ok, channels.counts.refusals, channels.counts.rpc_errors) == (1, {}, {})


async def test_an_expected_refusal_is_counted_by_its_reason_and_is_no_error(channels: Channels, script: Script) -> None:
    script.refuse["AcceptOffer"] = [DomainError(Reason.ALREADY_TAKEN)]
    with pytest.raises(DomainError) as caught:
        await driver(channels).accept("o1")
    assert caught.value.reason is Reason.ALREADY_TAKEN
    await channels.counts.settled()
    assert (channels.counts.refusals, channels.counts.rpc_errors) == ({"ALREADY_TAKEN": 1}, {})


async def test_any_other_status_is_an_error_by_its_code(channels: Channels, script: Script) -> None:
    script.refuse["AcceptOffer"] = [DomainError(Reason.NOT_YOURS)]
    with pytest.raises(DomainError):
        await driver(channels).accept("o1")
    await channels.counts.settled()
    assert (channels.counts.refusals, channels.counts.rpc_errors) == ({}, {"PERMISSION_DENIED": 1})
    assert channels.counts.errors_by_method == {"AcceptOffer PERMISSION_DENIED NOT_YOURS": 1}


async def test_every_attempt_of_a_repeated_call_is_counted_and_carries_the_same_request_id(
    channels: Channels, script: Script
) -> None:
    script.refuse["AcceptOffer"] = [DomainError(Reason.STORE_UNAVAILABLE), DomainError(Reason.CONFLICT)]
    await driver(channels).accept("o1")
    await channels.counts.settled()
    assert channels.counts.rpc_errors == {"UNAVAILABLE": 1, "ABORTED": 1}
    assert channels.counts.ok == 1
    assert len({request.request_id for method, _, request in script.asked if method == "AcceptOffer"}) == 1


async def test_two_changes_have_two_request_ids(channels: Channels, script: Script) -> None:
    app = driver(channels)
    await app.accept("o1")
    await app.accept("o1")
    assert len({request.request_id for method, _, request in script.asked if method == "AcceptOffer"}) == 2


async def test_a_service_that_does_not_answer_is_unavailable_once_for_each_attempt() -> None:
    async with Channels(Addresses("unix:/nowhere/a", "unix:/nowhere/b", "unix:/nowhere/c")) as channels:
        with pytest.raises(RpcError) as caught:
            await driver(channels).go_online()
        assert caught.value.code == "UNAVAILABLE"
    assert channels.counts.rpc_errors == {"UNAVAILABLE": 4}


async def test_a_stream_that_ends_well_is_ok_and_one_that_breaks_is_an_error(channels: Channels, script: Script) -> None:
    script.refuse["WatchRide/end"] = [DomainError(Reason.INTERNAL)]
    with pytest.raises(DomainError) as caught:
        [view async for view in rider(channels).watch_ride("gridport-01KACW4J000000000000000000")]
    assert caught.value.reason is Reason.INTERNAL
    [view async for view in rider(channels).watch_ride("gridport-01KACW4J000000000000000000")]
    await channels.counts.settled()
    assert (channels.counts.ok, channels.counts.rpc_errors) == (1, {"INTERNAL": 1})


async def test_a_stream_that_we_cut_off_counts_as_cancelled(channels: Channels, script: Script) -> None:
    offers = driver(channels).watch_offers()
    reading = asyncio.ensure_future(anext(offers))
    await reading
    waiting = asyncio.ensure_future(anext(offers))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await channels.close()
    assert channels.counts.rpc_errors == {"CANCELLED": 1}


async def test_a_stream_that_the_server_drains_is_ok(script: Script) -> None:
    async with fake_city(script) as addresses:
        channels = Channels(addresses)
        offers = driver(channels).watch_offers()
        assert (await anext(offers)).snapshot
    assert [view async for view in offers] == []
    await channels.close()
    assert (channels.counts.ok, channels.counts.rpc_errors) == (1, {})


async def test_calls_of_several_connections_are_counted_in_one_place(script: Script) -> None:
    async with fake_city(script) as addresses, Channels(addresses, per_service=4) as channels:
        await asyncio.gather(*(driver(channels, f"fleet.d{i}").go_online() for i in range(12)))
        await channels.counts.settled()
        assert channels.counts.ok == 12
    assert {caller for _, caller, _ in script.asked} == {f"driver/fleet.d{i}" for i in range(12)}
