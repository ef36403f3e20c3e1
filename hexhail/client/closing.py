"""How does an app close its side of a stream when it is asked to? Between two messages, with nothing lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")


async def until(over: asyncio.Event, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """The items that come before it is over. Whoever makes the next one is then cancelled where it waits."""
    closing = asyncio.ensure_future(over.wait())
    coming: asyncio.Future[T] | None = None
    try:
        while not over.is_set():
            coming = asyncio.ensure_future(_next_of(items))
            await asyncio.wait((coming, closing), return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return
            try:
                item = coming.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        closing.cancel()
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))


async def _next_of(items: AsyncIterator[T]) -> T:
    return await anext(items)
