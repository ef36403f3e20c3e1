"""A port that workers share is theirs alone: strangers are refused, before and after."""

from __future__ import annotations

import socket
from contextlib import closing

import grpc
import pytest

from hexhail.cli.errors import ServiceError
from hexhail.cli.ports import must_be_free, shared_port


def listener(address: str, *, shares: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    opened = socket.socket()
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        opened.bind((host, int(port)))
        opened.listen()
    except OSError:
        opened.close()
        raise
    return opened


def test_port_0_is_the_same_free_port_for_all() -> None:
    with shared_port("location", "127.0.0.1:0") as address:
        assert not address.endswith(":0")
        with closing(listener(address, shares=True)), closing(listener(address, shares=True)):
            pass


def test_whoever_does_not_share_on_purpose_is_kept_out() -> None:
    with shared_port("location", "127.0.0.1:0") as address, pytest.raises(OSError, match="in use"):
        listener(address, shares=False)


@pytest.mark.parametrize("shares", [False, True])
def test_a_stranger_on_the_port_is_found(shares: bool) -> None:
    with closing(listener("127.0.0.1:0", shares=shares)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(ServiceError, match=f"location cannot listen at {address} .*HEXHAIL_LOCATION_ADDRESS"):
            must_be_free("location", address)


async def test_a_server_of_our_own_kind_is_found_too() -> None:
    """It would share the port without a word."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 1),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(ServiceError):
            must_be_free("location", f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


def test_two_who_would_share_one_port_do_not_get_both() -> None:
    with shared_port("location", "127.0.0.1:0") as address, pytest.raises(ServiceError), shared_port("location", address):
        pass


def test_connections_that_were_just_closed_do_not_keep_a_port_from_being_used_again() -> None:
    with closing(listener("127.0.0.1:0", shares=True)) as former:
        address = f"127.0.0.1:{former.getsockname()[1]}"
        with socket.create_connection(former.getsockname()) as caller:
            former.accept()[0].close()
            assert caller.recv(1) == b""
    with shared_port("location", address) as held:
        assert held == address
        listener(held, shares=True).close()


def test_a_name_and_a_version_6_address_are_held_as_well() -> None:
    with shared_port("location", "localhost:0") as address:
        assert address.startswith("localhost:")
        assert not address.endswith(":0")
    if socket.has_ipv6:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return
        with shared_port("location", "[::1]:0") as address:
            assert address.startswith("[::1]:")


@pytest.mark.parametrize(
    "address", ["unix:/tmp/location.sock", "7601", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "::1:7601"]
)
def test_what_cannot_be_shared_is_one_clear_line(address: str) -> None:
    with pytest.raises(ServiceError, match="HEXHAIL_LOCATION_ADDRESS") as caught, shared_port("location", address):
        pass
    assert "\n" not in str(caught.value)
