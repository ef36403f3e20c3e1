"""What an address names."""

from __future__ import annotations

import pytest

from hexhail.kernel.addresses import host_and_port, is_socket_path, neighbour, with_port


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7601", ("127.0.0.1", 7601)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_has_two_parts(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address", ["", ":1", "host", "host:", "host:-1", "host:65536", "host:\u0661", "::1:80", "[host]:1", "unix:/x"]
)
def test_what_is_no_host_and_port_is_named(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        host_and_port(address)


def test_a_neighbour_is_so_many_ports_further_on() -> None:
    assert neighbour("127.0.0.1:9100", 0) == "127.0.0.1:9100"
    assert neighbour("[::1]:9100", 3) == "[::1]:9103"
    assert neighbour("127.0.0.1:0", 3) == "127.0.0.1:0"
    with pytest.raises(ValueError, match="the highest is 65535"):
        neighbour("127.0.0.1:65535", 1)


def test_a_port_can_be_put_in() -> None:
    assert with_port("[::1]:0", 80) == "[::1]:80"
    assert is_socket_path("unix:/tmp/x.sock")
    assert not is_socket_path("unix.example:80")
