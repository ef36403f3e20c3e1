"""A Valkey of one's own, empty at every start: nothing in it is irreplaceable."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hexhail.embedded.binaries import valkey_binary
from hexhail.embedded.errors import REDIS_URL_VARIABLE, StoreError, shown
from hexhail.embedded.folder import store_folder, usable
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.embedded.versions import is_clustered, judge_valkey
from hexhail.stores.address import address_of, at_node, cluster_seeds
from hexhail.stores.slots import SLOTS, slot_map

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from hexhail.stores.slots import SlotMap

_READY_S: Final = 20.0
_ANSWER_S: Final = 5.0
_ADVICE: Final = f"start it, correct {REDIS_URL_VARIABLE}, or unset that to run the embedded one"
_STOP: Final = (StopStep(signal.SIGTERM, 5.0),)


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Runs a Valkey on a Unix socket, with its files in `<data_dir>/valkey`, while the context lasts; gives its URL.

    Raises StoreError when the folder is in use or unusable, or when the server does not start (with its last words).
    """
    async with store_folder(data_dir, "valkey") as folder:
        with usable(folder.path):
            folder.path.mkdir(exist_ok=True, mode=0o700)
        socket = folder.socket_dir / "valkey.sock"
        listening = {"--port": "0", "--unixsocket": str(socket), "--unixsocketperm": "700"}
        child = started_valkey(folder.path, folder.log, listening, held_fds=(folder.child_lock_fd,))
        try:
            url = f"unix://{socket}?db=0"
            await valkey_ready(child, url)
            yield url
        finally:
            await child.stop(_STOP)


def started_valkey(folder: Path, log: Path, listening: Mapping[str, str], held_fds: tuple[int, ...] = ()) -> Child:
    """Starts a Valkey that keeps nothing, with its files in `folder`; options say where it listens."""
    options = {
        **listening,
        "--dir": str(folder),
        "--save": "",
        "--appendonly": "no",
        "--daemonize": "no",
        "--logfile": "",
        "--set-proc-title": "no",
    }
    argv = (str(valkey_binary()), *(word for option in options.items() for word in option))
    return Child(Launch(name="Valkey", argv=argv, death_signal=signal.SIGKILL, log=log, held_fds=held_fds))


async def valkey_ready(child: Child, url: str) -> None:
    """Returns once it answers at `url`. Raises StoreError, with its last words, where it does not."""
    async with _client(url) as client:
        await child.ready(lambda: _why_not_ready(client), _READY_S)


async def check_valkey(redis_url: str) -> None:
    """Does a server that we can work with answer at this address, or a whole cluster of them?

    Raises StoreError, on one line, where not.
    """
    try:
        seeds = cluster_seeds(redis_url)
        if seeds:
            await _check_cluster(redis_url, seeds)
        else:
            await _check_single(redis_url)
    except (RedisError, OSError, ValueError, TypeError) as error:  # a TypeError tells of an option that nobody knows
        reason = str(error) or type(error).__name__
        raise StoreError(f"no Valkey or Redis answers at {shown(redis_url)} ({reason}): {_ADVICE}") from error


async def _check_single(url: str) -> None:
    async with _client(url) as client:
        info = await client.info("server")
    _must_suit(url, info)
    if is_clustered(info):
        raise StoreError(f"at {shown(url)}: found a node of a cluster: give the cluster's address, redis+cluster://host:port")


async def _check_cluster(redis_url: str, seeds: Sequence[str]) -> None:
    """Every primary is looked at: each has its own version, and its own opinion of the cluster."""
    slots = await _slots(seeds)
    if slots.covered < SLOTS:
        raise StoreError(f"at {shown(redis_url)}: the cluster has primaries for {slots.covered} of {SLOTS} slots only: repair it")
    for address in slots.primaries:
        url = at_node(seeds[0], address)
        try:
            async with _client(url) as client:
                info, cluster = await client.info("server"), await _told(client, "CLUSTER INFO")
        except (RedisError, OSError) as error:
            raise RedisConnectionError(f"of its cluster, {address[0]}:{address[1]} is silent: {error}") from error
        _must_suit(url, info)
        if cluster["cluster_state"] != "ok":
            raise StoreError(f"at {shown(url)}: the cluster's state is {cluster['cluster_state']}: repair it")


async def _slots(seeds: Sequence[str]) -> SlotMap:
    """Who holds which slots, as the first seed that answers has it."""
    silent: list[Exception] = []
    for seed in seeds:
        try:
            async with _client(seed) as client:
                info = await client.info("server")
                if not is_clustered(info):
                    raise StoreError(
                        f"at {shown(seed)}: found no node of a cluster: a single server's address is redis://host:port"
                    )
                return slot_map(await _told(client, "CLUSTER", "SLOTS"), address_of(seed)[0])
        except (RedisError, OSError) as error:
            silent.append(error)
    raise silent[0]


async def _told(client: Redis, *command: str) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def _must_suit(url: str, info: Mapping[str, object]) -> None:
    objection = judge_valkey(info).objection
    if objection is not None:
        raise StoreError(f"at {shown(url)}: {objection}")


def _client(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0))


async def _why_not_ready(client: Redis) -> str | None:
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        return str(error)
    return None
