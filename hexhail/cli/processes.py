"""The services as child processes: started, awaited until healthy, started again when they fall, stopped with their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hexhail.cities import load_city
from hexhail.cli.errors import ServiceError
from hexhail.cli.ports import must_be_free
from hexhail.embedded import StoreError
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.kernel.addresses import is_socket_path, neighbour
from hexhail.kernel.clock import SystemClock
from hexhail.rpc.background import background
from routing.city import is_learned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hexhail.client import Addresses
    from hexhail.embedded import Stores
    from hexhail.kernel.settings import Settings

log = structlog.get_logger(__name__)

SERVICES = ("location", "matching", "pricing")
LEARNER = "traffic"
"""Runs beside them where a city's traffic is learned."""
_READY_S = 60.0
_LOOK_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.25, 30.0, 60.0
_STOP = (StopStep(signal.SIGTERM, 4.0),)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a service. Its name is that of its log, and what messages call it."""

    name: str
    service: str
    settings: Settings
    city_ids: Sequence[str]

    @property
    def health_address(self) -> str:
        """Where it alone answers."""
        address: str = self.settings.worker_address or getattr(self.settings, f"{self.service}_address")
        return address

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.settings.data_dir / f"{self.name}.log"

    def launch(self) -> Launch:
        """How to start it."""
        cities = [word for city_id in self.city_ids for word in ("--city", city_id)]
        argv = (
            sys.executable,
            "-m",
            "hexhail",
            "serve",
            self.service,
            *cities,
            "--data-dir",
            str(self.settings.data_dir.resolve()),
        )
        return Launch(self.name, argv, signal.SIGKILL, self.log, environment=environment_of(self.settings))


def environment_of(settings: Settings) -> dict[str, str]:
    """This process's environment with these settings in it, paths made whole: a child works in another folder."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("HEXHAIL_")}
    for name, value in settings:
        if value is not None:
            environment[f"HEXHAIL_{name.upper()}"] = str(value.resolve() if isinstance(value, Path) else value)
    return {**environment, "PYTHONUNBUFFERED": "1"}


def workers(service: str, settings: Settings, city_ids: Sequence[str], count: int, sockets: Path) -> list[Process]:
    """Several processes that share a service's port. Each answers alone at a socket in the folder `sockets`."""
    return [
        Process(
            f"{service}-{number}",
            service,
            settings.model_copy(update={"worker_address": f"unix:{sockets}/{service}-{number}.sock"}),
            city_ids,
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all service processes are told.

    location_workers, sockets : how many processes share location's port, and the folder in which each answers alone
    """

    settings: Settings
    city_ids: Sequence[str]
    addresses: Addresses
    stores: Stores
    data_dir: Path
    clock_offset_ms: int
    location_workers: int = 1
    sockets: Path | None = None

    @property
    def traffic_address(self) -> str:
        """Where the learner answers: a socket beside those of the services, where they have some."""
        location = self.addresses.location
        if not is_socket_path(location):
            return self.settings.traffic_address
        return f"{location.rpartition('/')[0]}/{LEARNER}.sock"

    def processes(self) -> list[Process]:
        """All of them."""
        settings = self.settings.model_copy(
            update={
                "data_dir": self.data_dir,
                "redis_url": self.stores.redis_url,
                "postgres_dsn": self.stores.postgres_dsn,
                "location_address": self.addresses.location,
                "matching_address": self.addresses.matching,
                "pricing_address": self.addresses.pricing,
                "traffic_address": self.traffic_address,
                "clock_offset_ms": self.clock_offset_ms,
                "worker_address": "",
            }
        )
        alone = [Process(service, service, settings, self.city_ids) for service in SERVICES]
        learned = [city_id for city_id in self.city_ids if is_learned(load_city(city_id, settings))]
        if learned:
            alone.append(Process(LEARNER, LEARNER, settings, learned))
        if self.sockets is None:
            return alone
        return [*workers("location", settings, self.city_ids, self.location_workers, self.sockets), *alone[1:]]


@asynccontextmanager
async def service_processes(plan: Plan) -> AsyncIterator[None]:
    """All services, healthy, for the time of the block. Raises ServiceError, also where an address is taken."""
    processes = plan.processes()
    for process in processes:
        if not process.settings.worker_address:
            must_be_free(process.service, process.health_address)
    async with kept_running(processes):
        yield


@asynccontextmanager
async def kept_running(processes: Sequence[Process]) -> AsyncIterator[None]:
    """These processes, healthy, for the time of the block; one that falls is started again. Raises ServiceError.

    Where they show metrics, each does so one port behind the one before.
    """
    processes = _with_metrics_apart(processes)
    async with AsyncExitStack() as stack:
        children: dict[str, Child] = {}

        async def stop_all() -> None:
            await asyncio.gather(*(child.stop(_STOP) for child in children.values()))

        stack.push_async_callback(stop_all)
        try:
            for process in processes:
                _set_log_aside(process.log)
                children[process.name] = Child(process.launch())
            async with asyncio.TaskGroup() as group:
                for process in processes:
                    group.create_task(children[process.name].ready(partial(why_unhealthy, process.health_address), _READY_S))
        except* StoreError as errors:
            raise ServiceError(str(errors.exceptions[0])) from None
        keepers = {process.name: partial(_keep_up, process, children) for process in processes}
        await stack.enter_async_context(background(keepers, SystemClock()))
        yield


def _with_metrics_apart(processes: Sequence[Process]) -> list[Process]:
    apart = []
    for number, process in enumerate(processes):
        address = process.settings.metrics_address
        try:
            own = neighbour(address, number) if address else ""
        except ValueError as error:
            raise ServiceError(f"HEXHAIL_METRICS_ADDRESS: {error}") from None
        apart.append(replace(process, settings=process.settings.model_copy(update={"metrics_address": own})))
    return apart


def _set_log_aside(log_file: Path) -> None:
    """The former run's log is kept as `.log.1`, and no longer."""
    log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".log.1"))


async def _keep_up(process: Process, children: dict[str, Child]) -> None:
    name, pause_s = process.name, _FIRST_PAUSE_S
    while True:
        began_s = time.monotonic()
        while children[name].exit_code() is None:  # noqa: ASYNC110 - no event tells of a process's end
            await asyncio.sleep(_LOOK_S)
        pause_s = _FIRST_PAUSE_S if time.monotonic() - began_s > _STEADY_S else min(2 * pause_s, _LONGEST_PAUSE_S)
        log.error("service fell: starting it again", service=name, pause_s=pause_s, last_words=children[name].last_words())
        await asyncio.sleep(pause_s)
        children[name] = Child(process.launch())


async def why_unhealthy(address: str) -> str | None:
    """Why the service there is not healthy; None where it is."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} at {address}"
    return None if reply.status == health_pb2.HealthCheckResponse.SERVING else "not serving yet"
