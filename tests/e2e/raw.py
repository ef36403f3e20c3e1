"""Calls as no app makes them: raw stubs, any token, and the refusal taken apart."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from hexhail.api.location.v1 import location_service_pb2
from hexhail.api.matching.v1 import matching_service_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2
from hexhail.rpc.status import DETAILS_KEY, details_in
from hexhail.rpc.tokens import Role, mint_token
from location.servicer import ACCESS as LOCATION_ACCESS
from matching.servicer import ACCESS as MATCHING_ACCESS
from pricing.servicer import ACCESS as PRICING_ACCESS
from tests.e2e.world import TOKEN_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from tests.e2e.world import World

Caller = tuple[Role, str]
PATIENCE_S = 10.0
GRPC_FORGOT = "Internal error from Core"
"""What grpc says instead of the status that came while a message was on its way (its issue 36066)."""
TABLES = ("rides", "offers", "assignments", "drivers", "requests", "outbox")


@dataclass(frozen=True, slots=True)
class Wire:
    """One service as its descriptor tells it."""

    name: str
    descriptor: ServiceDescriptor
    access: Mapping[str, frozenset[Role]]

    def methods(self) -> list[MethodDescriptor]:
        """Every method of the contract."""
        return list(self.descriptor.methods)


SERVICES = (
    Wire("location", location_service_pb2.DESCRIPTOR.services_by_name["LocationService"], LOCATION_ACCESS),
    Wire("matching", matching_service_pb2.DESCRIPTOR.services_by_name["MatchingService"], MATCHING_ACCESS),
    Wire("pricing", pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"], PRICING_ACCESS),
)
METHODS = [(wire, method) for wire in SERVICES for method in wire.methods()]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ended that did not end with OK."""

    code: str
    reason: str
    fields: tuple[str, ...]
    retry_s: float | None
    metadata: Mapping[str, str]


def bearer(caller: Caller) -> str:
    """The authorization of this caller."""
    return f"Bearer {mint_token(TOKEN_KEY, *caller)}"


def request_type(method: MethodDescriptor) -> type[Message]:
    """The message that a method takes."""
    return GetMessageClass(method.input_type)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """The status taken apart, by the standard's own types."""
    status = status_pb2.Status()
    status.ParseFromString(details_in(error.trailing_metadata()) or b"")
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_s = None
    for detail in status.details:
        for kind in (info, bad, retry):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
                retry_s = retry.retry_delay.ToMilliseconds() / 1000 if kind is retry else retry_s
    fields = tuple(violation.field for violation in bad.field_violations)
    return Refusal(error.code().name, info.reason, fields, retry_s, dict(info.metadata))


class Raw:
    """A channel to each service, without any of the clients' manners."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels

    async def call(
        self,
        wire: Wire,
        method: MethodDescriptor,
        request: Message | bytes,
        authorization: str | None,
        timeout_s: float = PATIENCE_S,
    ) -> Message | Refusal | None:
        """The answer, a stream's first (None where it has none), or how it was refused."""
        path = f"/{wire.descriptor.full_name}/{method.name}"
        answer_type = GetMessageClass(method.output_type)
        metadata = () if authorization is None else (("authorization", authorization),)
        body = request if isinstance(request, bytes) else request.SerializeToString()
        channel = self._channels[wire.name]
        kinds: Any = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, True): channel.stream_stream,
        }
        made = kinds[method.client_streaming, method.server_streaming](path, response_deserializer=answer_type.FromString)
        call = made(iter([body]) if method.client_streaming else body, metadata=metadata, timeout=timeout_s)
        try:
            if not method.server_streaming:
                answer: Message = await call
                return answer
            async for first in call:
                return first  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            if method.client_streaming and error.details() == GRPC_FORGOT:
                return await self.call(wire, method, request, authorization, timeout_s)
            if DETAILS_KEY not in dict(error.trailing_metadata() or ()):
                raise
            return refusal_of(error)
        finally:
            call.cancel()
        return None


@asynccontextmanager
async def raw_channels(world: World) -> AsyncIterator[Raw]:
    """Raw calls to a city at work."""
    at = {"location": world.addresses.location, "matching": world.addresses.matching, "pricing": world.addresses.pricing}
    channels = {name: grpc.aio.insecure_channel(address) for name, address in at.items()}
    try:
        yield Raw(channels)
    finally:
        for channel in channels.values():
            await channel.close()


async def rows(dsn: str) -> dict[str, int]:
    """How much is written."""
    connection = await asyncpg.connect(dsn)
    try:
        return {table: await connection.fetchval(f"SELECT count(*) FROM matching.{table}") for table in TABLES}  # noqa: S608
    finally:
        await connection.close()
