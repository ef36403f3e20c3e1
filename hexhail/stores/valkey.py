"""How does a service ask Valkey? One client, an answer within a limit, silence as STORE_UNAVAILABLE."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from hexhail.kernel.errors import DomainError, Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ANSWER_S: Final = 2.0
_CHECK_LINE_S: Final = 15


def connect(redis_url: str) -> Redis:
    """A client with a few connections for which callers queue, so that many questions at once do not become as many sockets.

    It has no socket timeout: with one, redis-py sends under `asyncio.wait_for`, which in Python 3.11 loses a cancellation that
    comes as the sending ends, so that a cancelled task lives on. `valkey_answers` around every question bounds it instead.
    """
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=16,
        timeout=ANSWER_S,
        socket_timeout=None,
        socket_connect_timeout=ANSWER_S,
        health_check_interval=_CHECK_LINE_S,
    )
    return Redis.from_pool(pool)


@contextmanager
def valkey_errors() -> Iterator[None]:
    """Around a call to Valkey: its failures become STORE_UNAVAILABLE."""
    try:
        yield
    except (RedisError, OSError) as error:  # a TimeoutError is an OSError
        raise DomainError(
            Reason.STORE_UNAVAILABLE, f"Valkey does not answer: {str(error) or type(error).__name__}", store="valkey"
        ) from error


@asynccontextmanager
async def valkey_answers() -> AsyncIterator[None]:
    """The same, for a question that must be answered within ANSWER_S seconds."""
    with valkey_errors():
        async with asyncio.timeout(ANSWER_S):
            yield
