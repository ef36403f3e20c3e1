"""How is a stream of messages answered while the next ones are read?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from hexhail.rpc.background import end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def answers_in_order(
    requests: AsyncIterator[Request], answer: Callable[[Request], Coroutine[None, None, Answer]], at_once: int
) -> AsyncIterator[Answer]:
    """Each request's answer, in the order of the requests, of which up to `at_once` are being answered at a time.

    `answer` may refuse a request by raising before it returns its coroutine: the answers before are still given, then the refusal
    is raised. When the caller goes, so does what is under way.
    """
    under_way: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
    places = asyncio.Semaphore(at_once)
    tasks: set[asyncio.Task[Answer]] = set()

    async def read() -> None:
        try:
            await places.acquire()
            async for request in requests:
                task = asyncio.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                under_way.put_nowait(task)
                await places.acquire()
        finally:
            under_way.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (task := await under_way.get()) is not None:
            yield await task
            places.release()
        await reading
    finally:
        await end([reading, *tasks])
