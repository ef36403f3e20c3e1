"""How does an app make a call? With its token, within a deadline, again where nothing was done, errors in the domain's words."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc
import tenacity
from ulid import ULID

from hexhail.client.ending import Followed
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.status import domain_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Q = TypeVar("Q")
R = TypeVar("R")

_AGAIN = frozenset(
    {
        Reason.CONFLICT,
        Reason.OVERLOADED,
        Reason.STORE_UNAVAILABLE,
        Reason.PEER_UNAVAILABLE,
        Reason.SURGE_UNKNOWN,
        Reason.DRAINING,
    }
)


class RpcError(Exception):
    """A call ended with a status that carries none of our reasons: a broken connection, a deadline that passed on our side."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


def is_passing(error: BaseException) -> bool:
    """May the same call succeed a little later?"""
    if isinstance(error, RpcError):
        return error.code == grpc.StatusCode.UNAVAILABLE.name
    return isinstance(error, DomainError) and error.reason in _AGAIN


def mint_request_id() -> str:
    """A name for one change, the same on every repeat of it."""
    return str(ULID())


@contextmanager
def errors_in_our_words() -> Iterator[None]:
    """Around a call: raises DomainError where the status carries a reason of ours, else RpcError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        known = domain_error(error)
        if known is not None:
            raise known from None
        raise RpcError(error.code().name, error.details() or "") from None


@dataclass(frozen=True, slots=True)
class Calling:
    """What all calls of one app have in common."""

    token: str
    timeout_s: float = 10.0
    attempts: int = 4
    """How often a call goes out at most, where the answer says that it may succeed a little later."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What names the caller."""
        return (("authorization", f"Bearer {self.token}"),)

    async def ask(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        """The answer to one call. Raises DomainError or RpcError. A repeat carries the same message, request_id included."""
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_passing),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            reraise=True,
        ):
            with attempt, errors_in_our_words():
                return await method(request, timeout=self.timeout_s, metadata=self.metadata())
        raise AssertionError("tenacity returns or raises")

    async def watch(self, method: grpc.aio.UnaryStreamMultiCallable[Q, R], request: Q) -> AsyncIterator[R]:
        """The messages of a server's stream; ends where it ends with OK. Raises DomainError or RpcError."""
        with errors_in_our_words():
            async for message in method(request, metadata=self.metadata()):
                yield message

    async def exchange(self, method: grpc.aio.StreamStreamMultiCallable[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """The messages of a stream both ways; our side is closed where `requests` ends. Raises DomainError or RpcError.

        Where the service ended the stream while a message was on its way, and what it said is lost, that is UNAVAILABLE.
        """
        call = method(requests, metadata=self.metadata())
        followed = Followed(call)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError:
            ending = await followed.ending()
            if ending.error is not None:
                raise ending.error from None
            if ending.is_grpcs_own:
                raise RpcError(grpc.StatusCode.UNAVAILABLE.name, "the stream ended while a message was on its way") from None
            if ending.code is not grpc.StatusCode.OK:
                raise RpcError(ending.code.name, ending.message) from None
