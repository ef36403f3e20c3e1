"""What happens around every call: who is it, may it, is there room, how long may it take, and what does its error look like.

One server interceptor does it all, in this order, so that servicers hold nothing but check, call, reply.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.admission import Admission, AdmissionParams
from hexhail.rpc.calls import CallCounters
from hexhail.rpc.status import CODE_OF, DETAILS_KEY, status_details
from hexhail.rpc.streams import OpenStream, life_of
from hexhail.rpc.tokens import Principal, Role, verify_token

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from hexhail.rpc.streams import Drain

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

log = structlog.get_logger(__name__)

_principal: ContextVar[Principal] = ContextVar("principal")

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Services of the standard kind that anyone may ask."""


_MALFORMED = object()
"""Stands for a request whose bytes are no message of its method."""


def principal() -> Principal:
    """Who is making the call that is being served?"""
    return _principal.get()


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Who may call a method, whether its behaviour is built, and how its messages are read where not by the generated code."""

    roles: frozenset[Role]
    implemented: bool = True
    reader: Callable[[bytes], Any] | None = None
    goodbye: Any = None
    """The answer that asks a streaming caller to close its side and to connect again; None where it has none."""
    begins_work: bool = False
    """What it begins will need more calls: where there are too many, it is refused first."""


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Identity, access, room, deadline, error mapping and logging for every method of a server."""

    def __init__(
        self,
        token_key: bytes,
        rules: Mapping[str, MethodRule],
        drain: Drain,
        *,
        calls: CallCounters | None = None,
        stream_age_s: Callable[[], float] = lambda: math.inf,
        admission: AdmissionParams | None = None,
        max_streams: int = 100_000,
        default_deadline_s: float = 10.0,
    ) -> None:
        self._token_key = token_key
        self._rules = rules
        self._drain = drain
        self._calls = calls if calls is not None else CallCounters()
        self._stream_age_s = stream_age_s
        self._admission = Admission(admission or AdmissionParams(), time.monotonic)
        self._max_streams = max_streams
        self._default_deadline_s = default_deadline_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the method's handler in everything that this module's first line names."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        any_handler: Any = handler  # the four kinds of behaviour differ in type only
        if handler.response_streaming:
            serve = self._stream(method, any_handler.stream_stream or any_handler.unary_stream, reads=handler.request_streaming)
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        else:
            serve = self._unary(method, any_handler.stream_unary or any_handler.unary_unary)
            make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        read = _read_stream if handler.request_streaming else _read_one
        reader = self._rules[method].reader or any_handler.request_deserializer
        return make(serve, read(reader), any_handler.response_serializer)

    def _unary(self, method: str, behaviour: Any) -> Any:
        begins_work = self._rules[method].begins_work

        async def serve(request: Any, context: Context) -> Any:
            async with self._around(method, context, self._calls.under_way):
                self._admit(method, context)
                if request is _MALFORMED:
                    raise _malformed()
                began_s = self._admission.enter(begins_work=begins_work)
                try:
                    async with asyncio.timeout(self._time_left_s(context)):
                        return await behaviour(request, context)
                except TimeoutError:
                    raise DomainError(Reason.DEADLINE_PASSED, "the call took longer than it may") from None
                finally:
                    self._admission.leave(began_s)

        return serve

    def _stream(self, method: str, behaviour: Any, *, reads: bool) -> Any:
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context, self._calls.streams_open):
                if self._drain.open_streams >= self._max_streams:
                    raise DomainError(Reason.OVERLOADED, "too many streams at once", retry_after_ms=5000)
                caller = self._admit(method, context)
                if request is _MALFORMED:
                    raise _malformed()
                goodbye = self._rules[method].goodbye
                stream = OpenStream(reads=reads, goodbye=None if goodbye is None else partial(context.write, goodbye))
                stream.live(life_of(caller.expires_at_s - time.time(), self._stream_age_s()))
                with self._drain.watching(stream):
                    asked = stream.requests(request) if reads else request
                    async with aclosing(stream.replies(behaviour(asked, context))) as replies:
                        async for reply in replies:
                            yield reply

        return serve

    def _admit(self, method: str, context: Context) -> Principal:
        if self._drain.draining:
            raise DomainError(Reason.DRAINING, "this server is shutting down: connect again")
        caller = verify_token(self._token_key, _bearer(context))
        rule = self._rules[method]
        if caller.role not in rule.roles:
            raise DomainError(
                Reason.ROLE_NOT_ALLOWED, f"role {caller.role} may not call {method}", role=caller.role, method=method
            )
        if not rule.implemented:
            raise DomainError(Reason.NOT_IMPLEMENTED, f"{method} is not built yet", method=method)
        _principal.set(caller)
        structlog.contextvars.bind_contextvars(caller=str(caller))
        return caller

    def _time_left_s(self, context: Context) -> float:
        left_s = cast("float | None", context.time_remaining())  # none where the caller set no deadline
        return self._default_deadline_s if left_s is None else left_s

    @asynccontextmanager
    async def _around(self, method: str, context: Context, counted: Counter[str]) -> AsyncIterator[None]:
        counted[method] += 1
        code = grpc.StatusCode.CANCELLED
        refusal: DomainError | None = None
        try:
            yield
            code = grpc.StatusCode.OK
        except DomainError as error:
            refusal = error
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception:
            incident_id = secrets.token_hex(8)
            log.exception("call failed", method=method, incident_id=incident_id)
            refusal = DomainError(Reason.INTERNAL, "a defect of ours", incident_id=incident_id)
        finally:
            counted[method] -= 1
            self._calls.ended[method, (CODE_OF[refusal.reason] if refusal else code).name] += 1
        if refusal is not None:
            await self._abort(context, method, refusal)

    @staticmethod
    async def _abort(context: Context, method: str, error: DomainError) -> None:
        log.debug("call refused", method=method, reason=error.reason, concerned=error.metadata)
        await context.abort(CODE_OF[error.reason], error.message, ((DETAILS_KEY, status_details(error)),))


def _read_one(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """grpc answers UNKNOWN where reading a request raises: so it does not raise."""

    def read(message: bytes) -> Any:
        try:
            return deserialize(message)
        except DecodeError:
            return _MALFORMED

    return read


def _read_stream(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The messages of a stream are read by the servicer's own loop, where an error finds its way to the caller."""

    def read(message: bytes) -> Any:
        try:
            return deserialize(message)
        except DecodeError:
            raise _malformed() from None

    return read


def _malformed() -> DomainError:
    return DomainError(Reason.INVALID_FIELD, "these bytes are no message of this method")


def _bearer(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            scheme, _, token = str(value).partition(" ")
            if scheme.lower() == "bearer" and token:
                return token
            raise DomainError(Reason.TOKEN_INVALID, "the authorization is not of the form 'Bearer TOKEN'")
    raise DomainError(Reason.TOKEN_MISSING, "no bearer token came with the call")
