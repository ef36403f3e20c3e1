"""How does a service ask Valkey? One client, an answer within a limit, silence as STORE_UNAVAILABLE."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from hexhail.embedded.errors import REDIS_URL_VARIABLE, StoreError, shown
from hexhail.kernel.errors import DomainError, Reason
from hexhail.stores.address import cluster_seeds
from hexhail.stores.cluster import UNSETTLED, Cluster
from hexhail.stores.line import CONNECTIONS, Line
from hexhail.stores.script import Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from hexhail.stores.line import Call

ANSWER_S: Final = 2.0
_CHECK_LINE_S: Final = 15


class Valkey(Protocol):
    """A Valkey or Redis, one node or a cluster, for whoever asks much and often."""

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        """What is the answer to each of these calls? In their order, in one round trip to each node that is concerned.

        Replies are as RESP3 has them: bytes, int, float, None, list, dict. In the place of a reply that there is not, there is
        what it failed by: a `ResponseError` that the server gave, or STORE_UNAVAILABLE where its node has not answered within
        ANSWER_S; the other calls stand. `answered` raises the first.

        On one node the calls are carried out in their order, with those of others between; on a cluster, only those of one slot
        are. All keys of a call are in one slot. EVALSHA of a script that was given to `open_valkey` and that the server does not
        know loads it, and is carried out after the other calls. A call that has failed for want of an answer may have been done.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections."""
        ...


def open_valkey(redis_url: str, scripts: Sequence[str] = ()) -> Valkey:
    """What HEXHAIL_REDIS_URL names, one node or a cluster; it is not reached before the first question.

    `scripts` are the texts of all scripts that will be called by EVALSHA. Raises ValueError for an address that is none.
    """
    known = {Script.of(text).sha: text for text in scripts}
    seeds = cluster_seeds(redis_url)
    if seeds:
        _line(seeds[0], known)
        return _Clustered(Cluster(seeds, lambda url: _line(url, known)))
    return _Single(_line(redis_url, known))


def answered(replies: list[Any]) -> list[Any]:
    """The replies, when all are. Raises STORE_UNAVAILABLE for the first that failed."""
    for reply in replies:
        if isinstance(reply, Exception):
            with valkey_errors():
                raise reply
    return replies


def connect(redis_url: str) -> Redis:
    """A client with a few connections for which callers queue, so that many questions at once do not become as many sockets.

    It has no socket timeout: with one, redis-py sends under `asyncio.wait_for`, which in Python 3.11 loses a cancellation that
    comes as the sending ends, so that a cancelled task lives on. `valkey_answers` around every question bounds it instead.
    Raises StoreError for a cluster, which is asked through `open_valkey` only.
    """
    if cluster_seeds(redis_url):
        raise StoreError(
            f"this service cannot use a cluster yet: give it a single Valkey in {REDIS_URL_VARIABLE}, not {shown(redis_url)}"
        )
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
        raise _unavailable(error) from error


@asynccontextmanager
async def valkey_answers() -> AsyncIterator[None]:
    """The same, for a question that must be answered within ANSWER_S seconds."""
    with valkey_errors():
        async with asyncio.timeout(ANSWER_S):
            yield


class _Single:
    """One node."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        if not calls:
            return []
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._line.exchange(calls)
        except (RedisError, OSError) as error:
            await self._line.hang_up()
            return [_unavailable(error)] * len(calls)

    async def aclose(self) -> None:
        await self._line.close()


class _Clustered:
    """A cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ask(self, calls: Sequence[Call]) -> list[Any]:
        replies = await self._cluster.ask(calls, ANSWER_S)
        return [_unavailable(reply) if _is_loss(reply) else reply for reply in replies]

    async def aclose(self) -> None:
        await self._cluster.aclose()


def _is_loss(reply: Any) -> bool:
    lost = isinstance(reply, (RedisError, OSError)) and not isinstance(reply, ResponseError)
    return lost or isinstance(reply, UNSETTLED)


def _unavailable(error: Exception) -> DomainError:
    return DomainError(Reason.STORE_UNAVAILABLE, f"Valkey does not answer: {str(error) or type(error).__name__}", store="valkey")


def _line(url: str, scripts: Mapping[str, str]) -> Line:
    options: dict[str, Any] = {**parse_url(url)}
    kind = options.pop("connection_class", Connection)
    connections = options.pop("max_connections", CONNECTIONS)
    options.pop("timeout", None)  # of a pool: ours waits as long as the question may
    options |= {"socket_timeout": None, "socket_connect_timeout": ANSWER_S, "retry": Retry(NoBackoff(), 0), "protocol": 3}
    try:
        kind(**options)
    except TypeError as error:
        raise ValueError(f"an option of the address is unknown: {error}") from error
    return Line(partial(kind, **options), scripts, connections)
