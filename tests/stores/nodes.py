"""Valkeys of a test's own, single and as a cluster: they can be killed, frozen, started again empty, and failed over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.asyncio import Redis
from redis.crc import key_slot

from hexhail.embedded.valkey import started_valkey, valkey_ready
from hexhail.stores.slots import SLOTS, slot_map

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from hexhail.embedded.process import Child

Asked = TypeVar("Asked")

HOST: Final = "127.0.0.1"
PRIMARIES: Final = 3
NODE_TIMEOUT_MS: Final = 4_000
_PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.02
# Below the ports that a system gives to outgoing connections: a dead node's port is still free when it comes back.
_PORTS: Final = range(12_000, 32_000)


@dataclass(slots=True)
class Node:
    """One Valkey, always at the same address. It keeps no data over a restart; a node of a cluster keeps its slots."""

    folder: Path
    url: str
    listening: dict[str, str]
    _child: Child | None = field(default=None, init=False)
    _frozen: bool = field(default=False, init=False)

    @property
    def well(self) -> bool:
        """Does it run?"""
        return self._child is not None and not self._frozen

    async def start(self) -> None:
        """Runs it, empty, and returns when it answers."""
        self._child = started_valkey(self.folder, self.folder / "log", self.listening)
        await valkey_ready(self._child, self.url)

    async def kill(self) -> None:
        """Ends it at once, by SIGKILL."""
        if self._child is not None:
            await self._child.stop(())
            self._child, self._frozen = None, False

    def freeze(self) -> None:
        """Stops it where it is: it is there, and silent."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)
        self._frozen = False

    async def tell(self, *command: str | int | bytes) -> Any:
        """What it answers to a command."""
        async with Redis.from_url(self.url, socket_timeout=5) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def mortal_valkey(folder: Path, *, tcp: bool = False) -> AsyncIterator[Node]:
    """A Valkey of one's own, running, on a Unix socket in `folder`, which exists and has a short path; or on a TCP port."""
    path, (port,) = folder / "v.sock", _free_ports(1)
    if tcp:
        node = Node(folder, f"redis://{HOST}:{port}", {"--bind": HOST, "--port": str(port)})
    else:
        node = Node(folder, f"unix://{path}?db=0", {"--port": "0", "--unixsocket": str(path), "--unixsocketperm": "700"})
    try:
        await node.start()
        yield node
    finally:
        await node.kill()


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """Three primaries with a third of the slots each, and their replicas, in the same order, if there are any."""

    primaries: tuple[Node, ...]
    replicas: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.primaries + self.replicas

    @property
    def url(self) -> str:
        """Its address, by its primaries."""
        return f"redis+cluster://{','.join(node.url.removeprefix('redis://') for node in self.primaries)}"

    def first_primary_of(self, key: str) -> Node:
        """Which primary held this key's slot at the start?"""
        return self.primaries[key_slot(key.encode()) * PRIMARIES // SLOTS]

    def key_of(self, node: Node, name: str = "key") -> str:
        """A key in one of the slots that a primary had at the start."""
        return next(key for key in (f"{name}{number}" for number in range(1_000)) if self.first_primary_of(key) is node)

    async def flush(self) -> None:
        """Empties every node that holds slots."""
        for node in self.primaries:
            await node.tell("FLUSHALL")

    async def whole(self) -> None:
        """Returns once all slots are served, in the opinion of every node that runs."""
        for node in self.nodes:
            if node.well:
                await until(_view, node, ("ok", SLOTS))

    async def fail_over(self, replica: Node) -> None:
        """Makes this replica the primary, whether the old one lives or not; returns when it is."""
        primary = self.primaries[self.replicas.index(replica)]
        await replica.tell("CLUSTER", "FAILOVER", *(() if primary.well else ("TAKEOVER",)))
        await until(_role, replica, b"master")

    async def start_moving(self, slot: int, source: Node, target: Node) -> None:
        """Opens a slot for moving: keys that the source has not are asked of the target."""
        await target.tell("CLUSTER", "SETSLOT", slot, "IMPORTING", await _id(source))
        await source.tell("CLUSTER", "SETSLOT", slot, "MIGRATING", await _id(target))

    async def give(self, slot: int, target: Node) -> None:
        """The slot is the target's from now on, and its keys are where they are."""
        target_id = await _id(target)
        for node in (target, *self.primaries):
            await node.tell("CLUSTER", "SETSLOT", slot, "NODE", target_id)


@asynccontextmanager
async def embedded_cluster(folder: Path, *, replicas: bool = False) -> AsyncIterator[RunningCluster]:
    """A cluster on free ports of this machine, whole when it is given; its nodes end with the context, or with this process.

    Other primaries go on serving when one is lost (`cluster-require-full-coverage no`, as docs recommend).
    """
    count = PRIMARIES * (2 if replicas else 1)
    ports = _free_ports(2 * count)
    nodes = tuple(_cluster_node(folder / str(number), ports[number], ports[count + number]) for number in range(count))
    cluster = RunningCluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.kill)
        await asyncio.gather(*(node.start() for node in nodes))
        await _join(cluster)
        yield cluster


async def until(ask: Callable[[Asked], Awaitable[object]], asked: Asked, wanted: object) -> None:
    """Returns once the answer of what is asked is the wanted one, within 30 s."""
    end = time.monotonic() + _PATIENCE_S
    while (answer := await ask(asked)) != wanted:
        assert time.monotonic() < end, f"still {answer!r}, not {wanted!r}"
        await asyncio.sleep(_POLL_S)


async def _join(cluster: RunningCluster) -> None:
    first, *others = cluster.nodes
    for number, node in enumerate(cluster.primaries):
        await node.tell("CLUSTER", "ADDSLOTSRANGE", *_share(number))
        await node.tell("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in others:
        await first.tell("CLUSTER", "MEET", HOST, node.listening["--port"], node.listening["--cluster-port"])
    for node in cluster.nodes:
        await until(_known, node, len(cluster.nodes))
    for replica, primary in zip(cluster.replicas, cluster.primaries, strict=False):
        await replica.tell("CLUSTER", "REPLICATE", await _id(primary))
    await cluster.whole()
    for replica in cluster.replicas:
        await until(_link, replica, "up")
    for node in cluster.nodes:
        await until(_listed, node, len(cluster.nodes))


def _cluster_node(folder: Path, port: int, bus_port: int) -> Node:
    folder.mkdir(parents=True)
    listening = {
        "--bind": HOST,
        "--port": str(port),
        "--cluster-port": str(bus_port),
        "--cluster-enabled": "yes",
        "--cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "--cluster-require-full-coverage": "no",
        "--repl-diskless-sync-delay": "0",
    }
    return Node(folder, f"redis://{HOST}:{port}", listening)


def _share(number: int) -> tuple[int, int]:
    """First and last slot of a primary."""
    return -(-number * SLOTS // PRIMARIES), -(-(number + 1) * SLOTS // PRIMARIES) - 1


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


async def _view(node: Node) -> tuple[object, int]:
    return (await node.tell("CLUSTER INFO"))["cluster_state"], slot_map(await node.tell("CLUSTER", "SLOTS"), HOST).covered


async def _known(node: Node) -> int:
    return int((await node.tell("CLUSTER INFO"))["cluster_known_nodes"])


async def _listed(node: Node) -> int:
    return len(slot_map(await node.tell("CLUSTER", "SLOTS"), HOST).nodes)


async def _role(node: Node) -> object:
    return (await node.tell("ROLE"))[0]


async def _link(node: Node) -> object:
    async with Redis.from_url(node.url) as client:
        return (await client.info("replication")).get("master_link_status")


async def _id(node: Node) -> str:
    return (await node.tell("CLUSTER", "MYID")).decode()  # type: ignore[no-any-return]
