"""How did every call end? One place counts the final status of each, whatever its kind, with no exclusions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc

from hexhail.client.ending import Followed
from hexhail.kernel.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

EXPECTED_REFUSALS = frozenset(
    {
        Reason.ALREADY_TAKEN,
        Reason.OFFER_CLOSED,
        Reason.ILLEGAL_TRANSITION,
        Reason.RIDER_BUSY,
        Reason.DRIVER_BUSY,
        Reason.DRIVER_OFFLINE,
        Reason.DRIVER_SUSPENDED,
        Reason.QUOTE_EXPIRED,
        Reason.QUOTE_USED,
        Reason.NO_ROUTE,
    }
)
"""What a sound system answers when people compete or come late. Every other non-OK status is an error."""


class CallCounts:
    """The ends of all calls made over some channels.

    A call that was retried counts once for each time it went out. A stream that we cancel counts as CANCELLED: whoever wants
    no errors ends it in the protocol's own way.
    """

    def __init__(self) -> None:
        self.ok = 0
        self.refusals: Counter[str] = Counter()
        """By reason."""
        self.rpc_errors: Counter[str] = Counter()
        """By code."""
        self.errors_by_method: Counter[str] = Counter()
        """The same errors as `METHOD CODE REASON`, for whoever looks for the cause."""
        self._unread: set[asyncio.Task[None]] = set()

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """One per kind of call, for a channel: grpc files an interceptor under its first kind only."""
        return [_UnaryUnary(self), _UnaryStream(self), _StreamStream(self)]

    def follow(self, method: str, call: Any) -> None:
        """Counts this call once it has ended."""
        followed = Followed(call, lambda: self._read_soon(method, followed))

    async def settled(self) -> None:
        """Returns once every call that has ended is counted."""
        while self._unread:
            await asyncio.wait(set(self._unread))

    def count(self, method: str, code: grpc.StatusCode, reason: Reason | None) -> None:
        """Counts one end."""
        if code is grpc.StatusCode.OK:
            self.ok += 1
        elif reason in EXPECTED_REFUSALS:
            self.refusals[str(reason)] += 1
        else:
            self.rpc_errors[code.name] += 1
            self.errors_by_method[f"{method.rpartition('/')[2]} {code.name} {reason or ''}".rstrip()] += 1

    def _read_soon(self, method: str, followed: Followed) -> None:
        task = asyncio.ensure_future(self._read(method, followed))
        self._unread.add(task)
        task.add_done_callback(self._unread.discard)

    async def _read(self, method: str, followed: Followed) -> None:
        ending = await followed.ending()
        self.count(method, ending.code, ending.error.reason if ending.error is not None else None)


class _Counting:
    def __init__(self, counts: CallCounts) -> None:
        self._counts = counts

    async def _made(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        method = details.method
        self._counts.follow(method.decode() if isinstance(method, bytes) else method, call)
        return call


class _UnaryUnary(_Counting, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._made(continuation, client_call_details, request)


class _UnaryStream(_Counting, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._made(continuation, client_call_details, request)


class _StreamStream(_Counting, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._made(continuation, client_call_details, request_iterator)
