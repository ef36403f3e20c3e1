"""A small service of one's own behind the real interceptor: what each method does is a function that a test gives."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from hexhail.rpc.calls import CallCounters
from hexhail.rpc.interceptor import MethodRule, ServerInterceptor
from hexhail.rpc.streams import Drain
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

TOKEN_KEY = b"k" * 32
PATIENCE_S = 10.0
PREFIX = "/test.Service/"


@dataclass(frozen=True, slots=True)
class Calls:
    """A client of the small service, and what holds it open."""

    channel: grpc.aio.Channel
    drain: Drain
    counters: CallCounters
    server: grpc.aio.Server

    async def ask(self, method: str, *, timeout_s: float | None = PATIENCE_S, token: str | None = None) -> bytes:
        """The answer of a unary call."""
        call: Any = self.channel.unary_unary(PREFIX + method)
        answer: bytes = await call(b"", timeout=timeout_s, metadata=bearer(token))
        return answer

    def watch(self, method: str, *, token: str | None = None) -> Any:
        """The messages of a stream."""
        call: Any = self.channel.unary_stream(PREFIX + method)
        return call(b"", metadata=bearer(token))

    def exchange(self, method: str) -> Any:
        """A stream both ways."""
        call: Any = self.channel.stream_stream(PREFIX + method)
        return call(metadata=bearer(None))


@dataclass
class Gate:
    """Something that waits until it is let go on, and says when it has begun."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, _request: bytes, _context: Any) -> bytes:
        self.began.set()
        await self.may_end.wait()
        return b"done"


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Of a rider, or with this token; an empty one sends none."""
    if token is None:
        token = mint_token(TOKEN_KEY, Role.RIDER, "r1")
    return (("authorization", f"Bearer {token}"),) if token else ()


@asynccontextmanager
async def small_service(
    folder: Path,
    *,
    unary: Mapping[str, Callable[[bytes, Any], Awaitable[bytes]]] | None = None,
    streams: Mapping[str, Callable[[bytes, Any], AsyncIterator[bytes]]] | None = None,
    exchanges: Mapping[str, Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]] | None = None,
    goodbye: bytes | None = None,
    beginning: AbstractSet[str] = frozenset(),
    patience_s: float = PATIENCE_S,
    **limits: Any,
) -> AsyncIterator[Calls]:
    """These methods, for riders, behind the interceptor."""
    unary, streams, exchanges = dict(unary or {}), dict(streams or {}), dict(exchanges or {})
    drain, counters = Drain(patience_s), CallCounters()
    rules = {
        PREFIX + name: MethodRule(frozenset({Role.RIDER}), goodbye=goodbye, begins_work=name in beginning)
        for name in (*unary, *streams, *exchanges)
    }
    server = grpc.aio.server(interceptors=(ServerInterceptor(TOKEN_KEY, rules, drain, calls=counters, **limits),))
    handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(act, bytes, bytes) for name, act in unary.items()}
    handlers |= {name: grpc.unary_stream_rpc_method_handler(act, bytes, bytes) for name, act in streams.items()}
    handlers |= {name: grpc.stream_stream_rpc_method_handler(act, bytes, bytes) for name, act in exchanges.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    address = f"unix:{folder}/small.sock"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            yield Calls(channel, drain, counters, server)
        finally:
            drain.begin()
            await server.stop(0)
