"""A Valkey of one's own, empty at every start: nothing in it is irreplaceable."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hexhail.embedded.binaries import valkey_binary
from hexhail.embedded.errors import REDIS_URL_VARIABLE, StoreError, shown
from hexhail.embedded.folder import store_folder, usable
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.embedded.versions import judge_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_READY_S: Final = 20.0
_ANSWER_S: Final = 5.0
_ADVICE: Final = f"start it, correct {REDIS_URL_VARIABLE}, or unset that to run the embedded one"
_STOP: Final = (StopStep(signal.SIGTERM, 5.0),)


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Runs a Valkey on a Unix socket, with its files in `<data_dir>/valkey`, while the context lasts; gives its URL.

    Raises StoreError when the folder is in use or unusable, or when the server does not start (with its last words).
    """
    binary = valkey_binary()
    async with store_folder(data_dir, "valkey") as folder:
        with usable(folder.path):
            folder.path.mkdir(exist_ok=True, mode=0o700)
        socket = folder.socket_dir / "valkey.sock"
        settings = {
            "--port": "0",
            "--unixsocket": str(socket),
            "--unixsocketperm": "700",
            "--dir": str(folder.path),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
            "--logfile": "",
            "--set-proc-title": "no",
        }
        child = Child(
            Launch(
                name="Valkey",
                argv=(str(binary), *(word for setting in settings.items() for word in setting)),
                death_signal=signal.SIGKILL,
                log=folder.log,
                held_fds=(folder.child_lock_fd,),
            )
        )
        try:
            url = f"unix://{socket}?db=0"
            async with _client(url) as client:
                await child.ready(lambda: _why_not_ready(client), _READY_S)
            yield url
        finally:
            await child.stop(_STOP)


async def check_valkey(redis_url: str) -> None:
    """Does a server that we can work with answer at this address? Raises StoreError, on one line, where not."""
    try:
        async with _client(redis_url) as client:
            info = await client.info("server")
    except (RedisError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StoreError(f"no Valkey or Redis answers at {shown(redis_url)} ({reason}): {_ADVICE}") from error
    objection = judge_valkey(info).objection
    if objection is not None:
        raise StoreError(f"at {shown(redis_url)}: {objection}")


def _client(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0))


async def _why_not_ready(client: Redis) -> str | None:
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return str(error)
    return None
