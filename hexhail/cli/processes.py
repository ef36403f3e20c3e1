"""The services as child processes: started, awaited until healthy, started again when they fall, stopped with their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hexhail.embedded import StoreError
from hexhail.embedded.process import Child, Launch, StopStep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hexhail.client import Addresses
    from hexhail.embedded import Stores
    from hexhail.kernel.settings import Settings

log = structlog.get_logger(__name__)

SERVICES = ("location", "matching", "pricing")
_READY_S = 60.0
_LOOK_S = 0.5
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
    """All services, healthy, for the time of the block. Raises ServiceError."""
    async with AsyncExitStack() as stack:
        children: dict[str, Child] = {}

        async def stop_all() -> None:
            await asyncio.gather(*(child.stop(_STOP) for child in children.values()))

        stack.push_async_callback(stop_all)
        try:
            for service in SERVICES:
                children[service] = Child(plan.launch(service))
            async with asyncio.TaskGroup() as group:
                for service, child in children.items():
                    group.create_task(child.ready(lambda s=service: _why_unhealthy(plan.address(s)), _READY_S))  # type: ignore[misc]
        except* StoreError as errors:
            raise ServiceError(str(errors.exceptions[0])) from None
        keeper = asyncio.create_task(_keep_up(plan, children))
        stack.push_async_callback(_cancelled, keeper)
        yield


async def _keep_up(plan: Plan, children: dict[str, Child]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        for service, child in children.items():
            if child.exit_code() is not None:
                log.error("service fell: starting it again", service=service, last_words=child.last_words())
                children[service] = Child(plan.launch(service))


async def _why_unhealthy(address: str) -> str | None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} at {address}"
    return None if reply.status == health_pb2.HealthCheckResponse.SERVING else "not serving yet"


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
