"""How did a call end? With its first status: grpc can put another in its place.

Where a service ends a stream while a message of ours is still on its way, that message fails, and grpc.aio then forgets the
status that came, for an INTERNAL of its own. Source: grpc issue 36066.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from hexhail.rpc.status import details_in, error_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.errors import DomainError

_GRPC_OWN: Final = "Internal error from Core"
_LATE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ending:
    """A status, with what came along."""

    code: grpc.StatusCode
    message: str
    error: DomainError | None
    """What the status says in our words, where it does."""

    @property
    def is_grpcs_own(self) -> bool:
        """Is it grpc's word, not the service's?"""
        return self.code is grpc.StatusCode.INTERNAL and self.message == _GRPC_OWN


_UNKNOWN: Final = Ending(grpc.StatusCode.INTERNAL, _GRPC_OWN, None)


class Followed:
    """Listens for the end of one call, without holding on to it before."""

    def __init__(self, call: Any, told: Callable[[], None] | None = None) -> None:
        """`told` is called once the end has come."""
        self._told = told
        self._first = _UNKNOWN
        self._ended_call: Any = None
        call.add_done_callback(self._on_end)

    async def ending(self) -> Ending:
        """The end of a call that has ended: the service's word, if ever it came."""
        if self._first.is_grpcs_own and self._ended_call is not None:
            await asyncio.sleep(_LATE_S)  # now and then the failed message is heard of before the status
            return await _status_of(self._ended_call)
        return self._first

    def _on_end(self, call: Any) -> None:
        self._ended_call = call
        asking = _status_of(call)
        try:
            asking.send(None)  # a call that has ended answers at once, and a moment later it may be too late
        except StopIteration as answer:
            self._first = answer.value
        finally:
            asking.close()
        if self._told is not None:
            self._told()


async def _status_of(call: Any) -> Ending:
    code, message = await call.code(), await call.details() or ""
    error = None if code is grpc.StatusCode.OK else error_of(details_in(await call.trailing_metadata()), code, message)
    return Ending(code, message, error)
