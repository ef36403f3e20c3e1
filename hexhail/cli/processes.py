"""The services as child processes: started, awaited until healthy, started again when they fall, stopped with their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hexhail.embedded import StoreError
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.kernel.clock import SystemClock
from hexhail.rpc.background import background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hexhail.client import Addresses
    from hexhail.embedded import Stores
    from hexhail.kernel.settings import Settings

log = structlog.get_logger(__name__)

SERVICES = ("location", "matching", "pricing")
_READY_S = 60.0
_LOOK_S = 0.2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.25, 30.0, 60.0
_STOP = (StopStep(signal.SIGTERM, 4.0),)


class ServiceError(Exception):
    """A service process does not come up; one line says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all service processes are told."""

    settings: Settings
    city_ids: Sequence[str]
    addresses: Addresses
    stores: Stores
    data_dir: Path
    clock_offset_ms: int

    def launch(self, service: str) -> Launch:
        """How to start one of them."""
        cities = [word for city_id in self.city_ids for word in ("--city", city_id)]
        argv = (sys.executable, "-m", "hexhail", "serve", service, *cities, "--data-dir", str(self.data_dir))
        environment = {
            **os.environ,
            "HEXHAIL_DATA": str(self.settings.data.resolve()),
            "HEXHAIL_CACHE_DIR": str(self.settings.cache_dir.resolve()),
            "HEXHAIL_REDIS_URL": self.stores.redis_url,
            "HEXHAIL_POSTGRES_DSN": self.stores.postgres_dsn,
            "HEXHAIL_LOCATION_ADDRESS": self.addresses.location,
            "HEXHAIL_MATCHING_ADDRESS": self.addresses.matching,
            "HEXHAIL_PRICING_ADDRESS": self.addresses.pricing,
            "HEXHAIL_CLOCK_OFFSET_MS": str(self.clock_offset_ms),
            "HEXHAIL_LOG_FORMAT": self.settings.log_format,
            "HEXHAIL_LOG_LEVEL": self.settings.log_level,
            "PYTHONUNBUFFERED": "1",
        }
        if self.settings.cities_dir:
            environment["HEXHAIL_CITIES_DIR"] = str(self.settings.cities_dir.resolve())
        return Launch(service, argv, signal.SIGKILL, self.data_dir / f"{service}.log", environment=environment)

    def address(self, service: str) -> str:
        """Where one of them listens."""
        address: str = getattr(self.addresses, service)
        return address


@asynccontextmanager
async def service_processes(plan: Plan) -> AsyncIterator[None]:
    """All services, healthy, for the time of the block. Raises ServiceError, also where an address is taken."""
    for service in SERVICES:
        _must_be_free(service, plan.address(service))
    async with AsyncExitStack() as stack:
        children: dict[str, Child] = {}

        async def stop_all() -> None:
            await asyncio.gather(*(child.stop(_STOP) for child in children.values()))

        stack.push_async_callback(stop_all)
        try:
            for service in SERVICES:
                _set_log_aside(plan.launch(service).log)
                children[service] = Child(plan.launch(service))
            async with asyncio.TaskGroup() as group:
                for service, child in children.items():
                    group.create_task(child.ready(partial(_why_unhealthy, plan.address(service)), _READY_S))
        except* StoreError as errors:
            raise ServiceError(str(errors.exceptions[0])) from None
        keepers = {service: partial(_keep_up, plan, service, children) for service in SERVICES}
        await stack.enter_async_context(background(keepers, SystemClock()))
        yield


def _set_log_aside(log_file: Path) -> None:
    """The former run's log is kept as `.log.1`, and no longer."""
    if log_file.exists():
        log_file.replace(log_file.with_suffix(".log.1"))


def _must_be_free(service: str, address: str) -> None:
    """Whoever listens there already would look like our own service."""
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port))):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ServiceError(
            f"{service} cannot listen at {address} ({error}): free it, or set HEXHAIL_{service.upper()}_ADDRESS"
        ) from None


async def _keep_up(plan: Plan, service: str, children: dict[str, Child]) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        began_s = time.monotonic()
        while children[service].exit_code() is None:  # noqa: ASYNC110 - no event tells of a process's end
            await asyncio.sleep(_LOOK_S)
        pause_s = _FIRST_PAUSE_S if time.monotonic() - began_s > _STEADY_S else min(2 * pause_s, _LONGEST_PAUSE_S)
        log.error("service fell: starting it again", service=service, pause_s=pause_s, last_words=children[service].last_words())
        await asyncio.sleep(pause_s)
        children[service] = Child(plan.launch(service))


async def _why_unhealthy(address: str) -> str | None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} at {address}"
    return None if reply.status == health_pb2.HealthCheckResponse.SERVING else "not serving yet"
