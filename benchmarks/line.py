"""A blocking line to Valkey, as lean as can be: commands are packed before the clock starts."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import hiredis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hexhail.stores.line import Call

_CHUNK: Final = 1 << 16
_ANSWER_S: Final = 30.0


def packed(calls: Iterable[Call]) -> bytes:
    """Commands as they go over the wire."""
    return b"".join(hiredis.pack_command(call) for call in calls)  # type: ignore[arg-type]  # its type knows tuples of one word only


class Line:
    """One connection, for one question at a time. It speaks RESP2."""

    def __init__(self, redis_url: str) -> None:
        """Connects to an embedded server's socket, `unix://PATH?db=0`."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWER_S)
        self._socket.connect(urlsplit(redis_url).path)
        self._reader = hiredis.Reader()

    def send(self, commands: bytes) -> None:
        """Sends packed commands."""
        self._socket.sendall(commands)

    def replies(self, count: int) -> list[Any]:
        """The next replies. Raises hiredis.ReplyError for the first that is an error, OSError where the line is cut."""
        found: list[Any] = []
        while len(found) < count:
            reply = self._reader.gets()
            if reply is False:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ConnectionError("Valkey has hung up")
                self._reader.feed(data)
            elif isinstance(reply, hiredis.ReplyError):
                raise reply
            else:
                found.append(reply)
        return found

    def ask(self, *calls: Call) -> list[Any]:
        """The replies to these commands."""
        self.send(packed(calls))
        return self.replies(len(calls))

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
