"""How a service listens: channel options, health, reflection, and an end that breaks nobody's stream."""

from __future__ import annotations

import asyncio
import math
import signal
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hexhail.kernel.addresses import is_socket_path
from hexhail.kernel.randomness import generator
from hexhail.rpc.background import end
from hexhail.rpc.calls import CallCounters
from hexhail.rpc.exporter import Exporter
from hexhail.rpc.interceptor import MethodRule, ServerInterceptor
from hexhail.rpc.ports import held_port
from hexhail.rpc.streams import Drain, StreamAge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    import numpy as np

    from hexhail.rpc.tokens import Role

log = structlog.get_logger(__name__)

SERVER_OPTIONS: Mapping[str, int] = {
    "grpc.so_reuseport": 0,  # a taken port is an error, not a second silent listener
    "grpc.server.max_pending_requests": 20_000,  # of each server: thousands of phones open their streams in the same second
    "grpc.server.max_pending_requests_hard_limit": 40_000,
    "grpc.max_receive_message_length": 4 * 1024 * 1024,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
}


SERVERS = 4
"""Of one process, on one port. grpc.aio takes in one call of each method in some five turns of the loop: where turns are long,
the others wait where no limit sees them, and three answers to a ride's offers longer than the next ride. Each server takes in its
own, of the connections that it was dealt.
"""


class ListenError(Exception):
    """The address cannot be listened on (taken, say)."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One gRPC service: its descriptor's full name, its servicer, and who may call which method."""

    full_name: str
    servicer: Any
    servicer_base: type
    register: Callable[[Any, grpc.aio.Server], None]
    access: Mapping[str, frozenset[Role]]
    readers: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)
    """How the messages of some methods are read, in the place of the generated reading; each raises DecodeError as that does."""
    goodbyes: Mapping[str, Any] = field(default_factory=dict)
    """What a method answers to have a streaming caller close its side, and connect again."""
    beginning: frozenset[str] = frozenset()
    """Methods that begin something which needs more calls: where there are too many, they are refused first."""

    def rules(self) -> dict[str, MethodRule]:
        """Method path -> rule. A method that the servicer inherits from the generated base is not built yet.

        Raises ValueError where `access` and the service's methods differ.
        """
        methods = {name for name in vars(self.servicer_base) if not name.startswith("_")}
        if methods != set(self.access):
            raise ValueError(f"{self.full_name}: access rules and methods differ in {sorted(methods ^ set(self.access))}")
        if not self.beginning <= methods:
            raise ValueError(f"{self.full_name}: there are no methods {sorted(self.beginning - methods)}")
        return {
            f"/{self.full_name}/{name}": MethodRule(
                self.access[name],
                getattr(type(self.servicer), name) is not getattr(self.servicer_base, name),
                self.readers.get(name),
                self.goodbyes.get(name),
                name in self.beginning,
            )
            for name in methods
        }


@dataclass(frozen=True, slots=True)
class Shell:
    """What a process gives its server besides the service.

    worker_address : where this worker answers alone, as `unix:PATH`; its port is then shared with the other workers. Empty for a
        process that has its port for itself
    stream_age : when streams are sent to connect again; None where load need not spread
    chance : draws the ages
    exporter : shows what is counted
    """

    worker_address: str = ""
    stream_age: StreamAge | None = None
    chance: np.random.Generator = field(default_factory=lambda: generator(0, "stream-age"))
    exporter: Exporter = field(default_factory=Exporter)

    def options(self, listen: str) -> list[tuple[str, int]]:
        """What grpc is told of a server that listens there."""
        options = dict(SERVER_OPTIONS)
        if not is_socket_path(listen):
            options["grpc.so_reuseport"] = 1
        if self.stream_age is not None:
            options["grpc.max_connection_age_ms"] = self.stream_age.connection_age_ms
        return list(options.items())

    def stream_age_s(self) -> float:
        """How old the next stream may become, seconds."""
        return math.inf if self.stream_age is None else self.stream_age.draw_s(self.chance)


class Server:
    """A listening service; `address` is where clients reach it."""

    def __init__(
        self,
        servers: Sequence[grpc.aio.Server],
        drain: Drain,
        health_servicer: health.aio.HealthServicer,
        name: str,
        address: str,
    ) -> None:
        self._servers = servers
        self._drain = drain
        self._health = health_servicer
        self._name = name
        self.address = address

    async def say_serving(self) -> None:
        """From now on its health is SERVING: it can answer what it is there for."""
        for name in (self._name, health.OVERALL_HEALTH):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float = 2.0) -> None:
        """Says NOT_SERVING, ends open streams with OK, lets calls under way finish, stops."""
        await self._health.enter_graceful_shutdown()
        self._drain.begin()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


async def start_server(spec: ServiceSpec, listen: str, token_key: bytes, shell: Shell) -> Server:
    """Listens at `listen` (`host:port`, port 0 for a free one, or `unix:PATH`) and serves. Raises ListenError.

    Its health is NOT_SERVING until `say_serving` is called.
    """
    drain, calls = Drain(), CallCounters()
    interceptor = ServerInterceptor(token_key, spec.rules(), drain, calls=calls, stream_age_s=shell.stream_age_s)
    health_servicer = health.aio.HealthServicer()

    def make() -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=(interceptor,), options=shell.options(listen))
        spec.register(spec.servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        reflection.enable_server_reflection((spec.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    with _held(listen, is_shared=bool(shell.worker_address)) as address:
        servers = [make() for _ in range(1 if is_socket_path(listen) else SERVERS)]
        for server in servers:
            _listen(server, address)
    if shell.worker_address:
        _listen(servers[0], shell.worker_address)
    shell.exporter.show_calls(calls)
    for server in servers:
        await server.start()
    for name in (spec.full_name, health.OVERALL_HEALTH):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    log.info("listening", address=address)
    return Server(servers, drain, health_servicer, spec.full_name, address)


@contextmanager
def _held(listen: str, *, is_shared: bool) -> Iterator[str]:
    """Keeps the address from strangers, until our own servers listen there; where workers share it, their parent does so."""
    if is_shared or is_socket_path(listen):
        yield listen
        return
    with ExitStack() as stack:
        try:
            address = stack.enter_context(held_port(listen))
        except OSError:
            raise _unheard(listen) from None
        except ValueError as error:
            raise ListenError(f"cannot listen on {listen}: {error}") from None
        yield address


def _listen(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise _unheard(address) from None


def _unheard(address: str) -> ListenError:
    return ListenError(f"cannot listen on {address}: is it taken, or not an address of this machine?")


@asynccontextmanager
async def serving(
    spec: ServiceSpec,
    listen: str,
    token_key: bytes,
    ready: Callable[[], Awaitable[object]] | None = None,
    shell: Shell | None = None,
) -> AsyncIterator[Server]:
    """A server for the time of the block; healthy once `ready` has returned, or at once where there is nothing to wait for."""
    server = await start_server(spec, listen, token_key, shell or Shell())

    async def become_healthy() -> None:
        if ready is not None:
            await ready()
        await server.say_serving()

    becoming = asyncio.create_task(become_healthy(), name="readiness")
    try:
        if ready is None:
            await becoming
        yield server
    finally:
        await end([becoming])
        await server.stop()


async def until_told_to_stop() -> None:
    """Returns at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
