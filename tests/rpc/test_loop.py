"""The event loop: one byte to read for gRPC's callback, however many woke it; everybody else's as asyncio has it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, TypeVarTuple

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.rpc import loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import FileDescriptorLike

Ts = TypeVarTuple("Ts")

MANY = 250
"""Fewer than a pair of sockets holds in single bytes."""


@pytest.fixture(name="pair")
def a_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@given(written=st.lists(st.integers(1, MANY), min_size=1, max_size=4))
def test_the_callback_finds_one_byte_however_many_were_written(written: list[int]) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        found: list[bytes] = []
        taken_in = loop.one_for_all(ours, lambda: found.append(ours.recv(MANY)))
        for count in written:
            for _ in range(count):
                theirs.send(b"1")
            taken_in()
        assert found == [b"1"] * len(written)


def test_what_the_callback_is_given_reaches_it(pair: tuple[socket.socket, socket.socket]) -> None:
    given_to: list[tuple[str, int]] = []

    def keep(name: str, number: int) -> None:
        given_to.append((name, number))

    loop.one_for_all(pair[0], keep)("a", 2)
    assert given_to == [("a", 2)]


def test_another_reader_of_a_socket_finds_all_of_it(pair: tuple[socket.socket, socket.socket]) -> None:
    async def read() -> bytes:
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pair[0], lambda: found.set_result(pair[0].recv(MANY)))
        pair[1].send(b"123")
        try:
            return await found
        finally:
            asyncio.get_running_loop().remove_reader(pair[0])

    assert loop.run(read()) == b"123"


def test_grpcs_reader_is_known_and_calls_are_answered() -> None:
    known: list[Any] = []

    class Watched(loop.Loop):
        def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
            if loop.is_grpcs(callback):
                known.append(fd)
            super().add_reader(fd, callback, *args)

    with asyncio.Runner(loop_factory=Watched) as runner:
        answers = runner.run(_echoes(MANY))
    assert answers == [str(number).encode() for number in range(MANY)]
    assert [type(fd) for fd in known] == [socket.socket]


async def _echoes(count: int) -> list[bytes]:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Echo")
        answers = await asyncio.gather(*(ask(str(number).encode()) for number in range(count)))
    await server.stop(None)
    return list(answers)
