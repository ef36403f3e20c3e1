"""Services and stores that can be killed in the middle of their work, and come back by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
from redis.asyncio import Redis

from hexhail.cli.processes import Process, why_unhealthy, workers
from hexhail.embedded import embedded_postgres, embedded_valkey
from hexhail.embedded.process import Child, StopStep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hexhail.kernel.settings import Settings

_READY_S = 60.0
_PAUSE_S = 0.1
_LOOK_S = 0.05
_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_STOP = (StopStep(signal.SIGTERM, 4.0),)


class MortalService:
    """One process of a service; whenever it ends, it is started again."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.kills = 0
        self.falls: list[str] = []
        """What it said last, each time that it ended without being killed."""
        self._child: Child | None = None
        self._killed = False
        self.serves = False

    def start(self) -> None:
        """Starts it. Raises StoreError where that cannot work."""
        self._killed = self.serves = False
        self._child = Child(self.process.launch())

    async def ready(self) -> None:
        """Returns once it serves. Raises StoreError."""
        if self._child is not None:
            await self._child.ready(partial(why_unhealthy, self.process.health_address), _READY_S)
            self.serves = True

    def kill(self) -> None:
        """Ends it at once, by SIGKILL."""
        if self._child is None or self._killed:
            return
        self._killed, self.serves = True, False
        self.kills += 1
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    async def freeze(self, seconds: float) -> None:
        """Stops it where it is, and lets it go on later, as if nothing had happened."""
        if self._child is None or self._killed:
            return
        pid = self._child.pid
        self.serves = False
        try:
            os.killpg(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)

    async def keep(self) -> None:
        """Starts it again whenever it has ended, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._child is None:
                continue
            if self._child.exit_code() is None:
                if not self.serves and not self._killed:
                    self.serves = await why_unhealthy(self.process.health_address) is None
                continue
            if not self._killed:
                self.falls.append(self._child.last_words())
                await asyncio.sleep(_PAUSE_S)
            self.start()

    async def stop(self) -> None:
        """Ends it in good order."""
        if self._child is not None:
            await self._child.stop(_STOP)


@dataclass(slots=True)
class MortalStores:
    """A Valkey and a PostgreSQL of one's own, each always at the same address."""

    folder: Path
    redis_url: str = ""
    postgres_dsn: str = ""
    wipes: int = 0
    restarts: int = 0
    cuts: int = 0
    _valkey: AsyncExitStack = field(default_factory=AsyncExitStack)
    _postgres: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Both run. Raises StoreError."""
        await self._start_valkey()
        await self._start_postgres()

    async def stop(self) -> None:
        """Both have ended."""
        await self._valkey.aclose()
        await self._postgres.aclose()

    async def wipe(self) -> None:
        """Valkey forgets everything, scripts included."""
        async with Redis.from_url(self.redis_url, socket_timeout=5) as client:
            await client.flushall()
            await client.script_flush()
        self.wipes += 1

    async def restart_valkey(self) -> None:
        """Valkey is ended, and another one, empty, takes its place."""
        await self._valkey.aclose()
        await self._start_valkey()
        self.wipes += 1

    async def restart_postgres(self, how: signal.Signals) -> None:
        """PostgreSQL is ended by this signal (SIGINT: in good order; SIGQUIT, SIGKILL: in its midst), and started again."""
        note = self.folder / "postgres" / "postmaster.pid"
        os.kill(int(note.read_text(encoding="utf-8").split("\n", 1)[0]), how)
        await self._postgres.aclose()
        await self._start_postgres()
        self.restarts += 1

    async def cut(self) -> None:
        """Every connection to both is broken off, whatever is under way: some of it was committed, and nobody is told."""
        connection = await asyncpg.connect(self.postgres_dsn)
        try:
            await connection.execute(_CUT)
        finally:
            await connection.close()
        async with Redis.from_url(self.redis_url, socket_timeout=5) as client:
            for kind in ("normal", "pubsub"):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind)  # type: ignore[no-untyped-call]
        self.cuts += 1

    async def _start_valkey(self) -> None:
        self._valkey = AsyncExitStack()
        self.redis_url = await self._valkey.enter_async_context(embedded_valkey(self.folder))

    async def _start_postgres(self) -> None:
        self._postgres = AsyncExitStack()
        self.postgres_dsn = await self._postgres.enter_async_context(embedded_postgres(self.folder))


@asynccontextmanager
async def mortal_services(
    settings: Settings, city_id: str, matching_workers: int, sockets: Path
) -> AsyncIterator[list[MortalService]]:
    """Location, pricing and so many workers of matching, healthy, for the time of the block. Raises StoreError."""
    alone = [Process(name, name, settings, [city_id]) for name in ("location", "pricing")]
    several = workers("matching", settings, [city_id], matching_workers, sockets)
    services = [MortalService(process) for process in (*alone, *several)]
    keeping: list[asyncio.Task[None]] = []
    try:
        for service in services:
            service.start()
        await asyncio.gather(*(service.ready() for service in services))
        keeping = [asyncio.create_task(service.keep()) for service in services]
        yield services
    finally:
        for task in keeping:
            task.cancel()
        if keeping:
            await asyncio.wait(keeping)
        await asyncio.gather(*(service.stop() for service in services))


def logged(services: Sequence[MortalService], *levels: str) -> Counter[str]:
    """How often did the services log each event of these levels? As `service: event`, and why: its reason, or what was raised."""
    found: Counter[str] = Counter()
    for line in log_lines(services):
        if line.get("level") in levels:
            why = str(line.get("exception") or line.get("reason") or "").strip().rpartition("\n")[2]
            found[f"{line.get('service')}: {line.get('event')}" + (f": {why}" if why else "")] += 1
    return found


def raised(services: Sequence[MortalService]) -> list[str]:
    """What the services said of each exception that they did not expect, whole, each once."""
    return sorted({str(line["exception"]) for line in log_lines(services) if "exception" in line})


def repaired(services: Sequence[MortalService]) -> Counter[str]:
    """What did the reconcilers put right, by kind? As they have logged it, so that no killed process's count is lost."""
    found: Counter[str] = Counter()
    for line in log_lines(services):
        if line.get("event") == "repaired":
            found.update({name: count for name, count in line.items() if isinstance(count, int)})
    return found


def log_lines(services: Sequence[MortalService]) -> list[dict[str, Any]]:
    """All that the services logged, as values; what is no JSON is passed over."""
    found = []
    for service in services:
        for text in service.process.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("{"):
                with suppress(json.JSONDecodeError):
                    found.append(json.loads(text))
    return found
