"""A server that reads fixes and discards them: what gRPC alone can do. `python -m benchmarks.discard_grpc ADDRESS`

It checks no token, judges nothing and acknowledges nothing before the end: it has no interceptor, and the options of our servers.
"""

from __future__ import annotations

import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.rpc import loop
from hexhail.rpc.server import SERVER_OPTIONS, until_told_to_stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COUNT_METHOD: Final = "/hexhail.benchmarks.Discard/Count"
COUNTED: Final = "<dq"
"""When it was asked, by the machine's monotonic clock in seconds, and how many fixes it had read by then."""


class Discard(rpc.LocationServiceServicer):
    """Answers the session, then reads. It has no other methods."""

    def __init__(self) -> None:
        self.read = 0

    async def StreamFixes(  # noqa: N802 - the generated interface's name
        self, request_iterator: AsyncIterator[pb.StreamFixesRequest], context: Any
    ) -> AsyncIterator[pb.StreamFixesResponse]:
        """One driver's fixes: gone. The last word says how many there were."""
        del context
        mine = -1
        async for _ in request_iterator:
            mine += 1
            if mine:
                self.read += 1
            else:
                yield pb.StreamFixesResponse(session_opened=pb.SessionOpened(session_id=1))
        yield pb.StreamFixesResponse(ack=pb.FixAck(up_to_sequence=mine, accepted=mine))

    async def count(self, request: bytes, context: Any) -> bytes:
        """How many so far?"""
        del request, context
        return struct.pack(COUNTED, time.perf_counter(), self.read)


async def why_not_discarding(address: str) -> str | None:
    """None once it serves at the address; else why not."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            ask: Any = channel.unary_unary(COUNT_METHOD)
            await ask(b"")
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return None


async def _serve(address: str) -> None:
    server = grpc.aio.server(options=tuple(SERVER_OPTIONS.items()))
    discard = Discard()  # type: ignore[abstract]
    rpc.add_LocationServiceServicer_to_server(discard, server)
    service, _, method = COUNT_METHOD.lstrip("/").partition("/")
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {method: grpc.unary_unary_rpc_method_handler(discard.count)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await until_told_to_stop()
    await server.stop(0)


if __name__ == "__main__":
    loop.run(_serve(sys.argv[1]))
