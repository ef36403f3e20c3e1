"""How do many callers ask one node of Valkey at once? Each on a connection of its own for the time of its question."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis.asyncio.connection import AbstractConnection

Call: TypeAlias = tuple[str | bytes | int | float, ...]
"""One command and its arguments."""

CONNECTIONS: Final = 16
"""To one node, for which callers queue, so that many questions at once do not become as many sockets."""


class NotReached(RedisConnectionError):
    """There is no connection to the node: nothing was sent."""


class Line:
    """Connections to one node.

    Between redis-py's `Connection` and its callers, it does what redis-py's pipeline and pool do, and nothing besides. On a Unix
    socket, in microseconds of the caller's core for a question, asked by one caller and by eight at once: a script call with
    20 kB by redis-py's pipeline 256 and 160, by this 157 and 97; three small commands 256 and 190, by this 100 and 51; ten script
    calls with 20 kB each 541 and 520, by this 231 and 206 (decision 12).
    """

    def __init__(
        self, connect: Callable[[], AbstractConnection], scripts: Mapping[str, str], connections: int = CONNECTIONS
    ) -> None:
        """`connect` makes a connection, not connected yet; `scripts` are texts by their SHA-1 in hexadecimal."""
        self._connect = connect
        self._scripts = scripts
        self._idle: list[AbstractConnection] = []
        self._room = asyncio.Semaphore(connections)
        self._closed = False

    async def exchange(self, calls: Sequence[Call]) -> list[Any]:
        """All replies, in order; what the server refused is a ResponseError in its place.

        EVALSHA of one of our scripts that the server does not know loads it, and is asked again, after all the others.
        Raises NotReached, and RedisError or OSError where the connection was lost: then nobody knows what was done.
        A caller that gives up, by whatever, leaves no reply behind for the next: its connection is closed.
        """
        async with self._room:
            connection = await self._connection()
            try:
                replies, refused = await _exchanged(connection, calls)
                unknown = [row for row in refused if isinstance(replies[row], NoScriptError)]
                texts = {text for row in unknown if (text := self._text(calls[row])) is not None}
                if texts:
                    loads: list[Call] = [("SCRIPT", "LOAD", text) for text in texts]
                    again, _ = await _exchanged(connection, [*loads, *(calls[row] for row in unknown)])
                    for row, reply in zip(unknown, again[len(loads) :], strict=True):
                        replies[row] = reply
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            if self._closed or any(isinstance(replies[row], ReadOnlyError) for row in refused):
                await connection.disconnect(nowait=True)  # a primary no more: its name may lead to the new one
            else:
                self._idle.append(connection)
            return replies

    async def hang_up(self) -> None:
        """Closes what is idle: after one connection has died, the others are not to be trusted."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Closes all connections, those in use when their callers are done."""
        self._closed = True
        await self.hang_up()

    async def _connection(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            if not await connection.can_read():  # else it was closed from the other side
                return connection
            await connection.disconnect(nowait=True)
        connection = self._connect()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            await connection.disconnect(nowait=True)
            raise NotReached(str(error) or type(error).__name__) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _text(self, call: Call) -> str | None:
        sha = call[1]
        return self._scripts.get(sha.decode() if isinstance(sha, bytes) else str(sha))


async def _exchanged(connection: AbstractConnection, calls: Sequence[Call]) -> tuple[list[Any], list[int]]:
    """All replies, and the rows of those that are refusals."""
    packed = [hiredis.pack_command(call) for call in calls]  # type: ignore[arg-type]  # its type knows tuples of one word only
    await connection.send_packed_command(packed, check_health=False)
    replies: list[Any] = []
    refused: list[int] = []
    for row in range(len(calls)):
        try:
            replies.append(await connection.read_response())
        except ResponseError as refusal:
            replies.append(refusal)
            refused.append(row)
    return replies, refused
