"""How a service listens: at one address, by several servers, and beside nobody else."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hexhail.api.pricing.v1 import pricing_service_pb2_grpc as pricing_grpc
from hexhail.rpc.server import SERVERS, ListenError, ServiceSpec, serving
from hexhail.rpc.tokens import EVERYONE

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32
CONNECTIONS = 40


def spec() -> ServiceSpec:
    """A service that answers for its health, and has built nothing yet."""
    base = pricing_grpc.PricingServiceServicer
    return ServiceSpec(
        "hexhail.api.pricing.v1.PricingService",
        base(),  # type: ignore[abstract]  # all stays UNIMPLEMENTED
        base,
        pricing_grpc.add_PricingServiceServicer_to_server,
        {method: EVERYONE for method in vars(base) if not method.startswith("_")},
    )


async def health_at(address: str) -> int:
    """By a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return int(answer.status)


async def test_every_connection_is_served_whichever_server_has_it() -> None:
    async with serving(spec(), "127.0.0.1:0", KEY) as server:
        listening = [each for each in psutil.Process().net_connections("tcp") if f"127.0.0.1:{each.laddr[1]}" == server.address]
        said = await asyncio.gather(*(health_at(server.address) for _ in range(CONNECTIONS)))
    assert [each.status for each in listening] == [psutil.CONN_LISTEN] * SERVERS
    assert said == [health_pb2.HealthCheckResponse.SERVING] * CONNECTIONS


async def test_once_stopped_its_address_is_free_again() -> None:
    async with serving(spec(), "127.0.0.1:0", KEY) as server:
        address = server.address
    with pytest.raises(grpc.aio.AioRpcError):
        await health_at(address)
    async with serving(spec(), address, KEY) as again:
        assert await health_at(again.address) == health_pb2.HealthCheckResponse.SERVING


async def test_a_stranger_at_the_address_is_an_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"cannot listen on {address}: is it taken"):
            await opened(address)


async def test_so_is_one_of_our_own_that_shares_it_among_its_servers() -> None:
    async with serving(spec(), "127.0.0.1:0", KEY) as server:
        with pytest.raises(ListenError, match=f"cannot listen on {server.address}: is it taken"):
            await opened(server.address)


async def test_a_stranger_who_would_share_the_address_is_one_too() -> None:
    with closing(socket.socket()) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(ListenError, match="is it taken"):
            await opened(f"127.0.0.1:{stranger.getsockname()[1]}")


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1", "is not host:port"), ("192.0.2.1:0", "not an address of this machine")]
)
async def test_what_is_no_address_of_this_machine_is_an_error(address: str, why: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {address}: .*{why}"):
        await opened(address)


async def test_a_socket_file_has_one_server(tmp_path: Path) -> None:
    async with serving(spec(), f"unix:{tmp_path}/s", KEY) as server:
        said = await asyncio.gather(*(health_at(server.address) for _ in range(CONNECTIONS)))
    assert said == [health_pb2.HealthCheckResponse.SERVING] * CONNECTIONS


async def opened(address: str) -> None:
    """Opens a service there, and closes it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(spec(), address, KEY))
