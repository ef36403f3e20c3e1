"""How do simulated people wait? Until something happens, but no longer than so long; and with a stream that is opened again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import tenacity

from hexhail.client import is_passing

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Does the event happen within this time?"""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(max(within_s, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def kept_open(
    name: str, stream: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool], reopened: Counter[str]
) -> None:
    """Runs a stream again, with growing pauses, where it ends before it is unwanted: by a drain, or a service that is gone.

    Returns once it has ended unwanted. Raises DomainError or RpcError where trying again is of no use.
    """

    async def once() -> bool:
        await stream()
        return is_wanted()

    def count(_: tenacity.RetryCallState) -> None:
        reopened[name] += 1

    await tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(bool) | tenacity.retry_if_exception(lambda e: is_wanted() and is_passing(e)),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=3.0),
        before_sleep=count,
        reraise=True,
    )(once)
