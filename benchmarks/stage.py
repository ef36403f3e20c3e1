"""What a benchmark runs on: a Valkey of its own, a city made for it, and the real location service as a child process."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.calls_grpc import LocationCalls
from benchmarks.discard_grpc import why_not_discarding
from benchmarks.places import FLEET
from hexhail.cities import policy_of
from hexhail.cities.loader import load_city_file
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.embedded.valkey import embedded_valkey
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Role, mint_token
from location.params import LocationParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from hexhail.cities import City

READY_S: Final = 60.0
STOP: Final = (StopStep(signal.SIGTERM, 4.0),)
_OWN_VARIABLES: Final = "HEXHAIL_"

_CITY_TOML: Final = """\
[city]
id = "{city_id}"
name = "Benchmark"
time_zone = "America/New_York"
currency_code = "USD"
capabilities = ["economy"]
index_resolution = {index_resolution}
surge_resolution = 7
buckets = {buckets}

[city.area]
polygon = [[{south}, {west}], [{south}, {east}], [{north}, {east}], [{north}, {west}]]

[[city.products]]
id = "economy"
capabilities = ["economy"]

[location.belief]
# A load makes a minute's fixes in a second. All other rules hold, that of impossible speed too.
min_interval_ms = 0
"""


@dataclass(frozen=True, slots=True)
class CityPlan:
    """A city to be made. box : south, west, north, east, degrees."""

    city_id: str
    box: tuple[float, float, float, float]
    index_resolution: int
    buckets: int
    policies: str = ""
    """Further sections of its file."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and how it is reached."""

    folder: Path
    cities: tuple[City, ...]
    redis_url: str
    address: str
    service_pid: int
    token_key: bytes

    def radius_m(self, city: City) -> float:
        """How far does the service search where a question names no radius?"""
        return policy_of(city, "location", LocationParams).nearby.radius_m

    def calls(self, city: City) -> LocationCalls:
        """The calls of matching, about a city."""
        return LocationCalls(self.address, self.token_key, city.city_id)

    @property
    def fleet_token(self) -> str:
        """The gateway's."""
        return mint_token(self.token_key, Role.FLEET, FLEET)

    @property
    def service_token(self) -> str:
        """A caller's who asks who is near."""
        return mint_token(self.token_key, Role.SERVICE, "bench")


@asynccontextmanager
async def stage(folder: Path, plans: Sequence[CityPlan], workers: int) -> AsyncIterator[Stage]:
    """Everything, for the time of the block, with its files in this folder. Raises StoreError where something does not start."""
    cities = tuple(made_city(folder, plan) for plan in plans)
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(embedded_valkey(folder))
        address = free_address()
        where = {"HEXHAIL_REDIS_URL": redis_url, "HEXHAIL_LOCATION_ADDRESS": address}
        service = Child(service_launch("location", folder, cities, where, workers))
        stack.push_async_callback(service.stop, STOP)
        made = Stage(folder, cities, redis_url, address, service.pid, load_or_make_key(folder, "tokens"))
        for city in cities:
            async with made.calls(city) as calls:
                await service.ready(calls.why_not_ready, READY_S)
        yield made


@asynccontextmanager
async def discarding(folder: Path) -> AsyncIterator[str]:
    """The server that discards, for the time of the block: its address. Raises StoreError where it does not start."""
    address = free_address()
    argv = (sys.executable, "-m", "benchmarks.discard_grpc", address)
    child = Child(Launch("discarding server", argv, signal.SIGKILL, folder / "discard.log", environment=_environment()))
    try:
        await child.ready(lambda: why_not_discarding(address), READY_S)
        yield address
    finally:
        await child.stop(STOP)


def made_city(folder: Path, plan: CityPlan) -> City:
    """The city of this plan; its file is in the folder `cities` of this one."""
    cities = folder / "cities"
    cities.mkdir(exist_ok=True)
    south, west, north, east = plan.box
    text = _CITY_TOML.format(
        city_id=plan.city_id,
        index_resolution=plan.index_resolution,
        buckets=plan.buckets,
        south=south,
        west=west,
        north=north,
        east=east,
    )
    path = cities / f"{plan.city_id}.toml"
    path.write_text(text + plan.policies, encoding="utf-8")
    return load_city_file(path, folder)


def service_launch(service: str, folder: Path, cities: Sequence[City], where: Mapping[str, str], workers: int = 1) -> Launch:
    """How a service of these cities is started. where : variables that name the stores and the services"""
    words = [word for city in cities for word in ("--city", city.city_id)]
    words += ["--data-dir", str(folder), *(("--workers", str(workers)) if workers > 1 else ())]
    argv = (sys.executable, "-m", "hexhail", "serve", service, *words)
    environment = {
        **_environment(),
        "HEXHAIL_CITIES_DIR": str(folder / "cities"),
        "HEXHAIL_LOG_LEVEL": "warning",
        **where,
    }
    return Launch(service, argv, signal.SIGKILL, folder / f"{service}.log", environment=environment)


def _environment() -> dict[str, str]:
    """Without whatever is set for services that run here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}


def free_address() -> str:
    """An address of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"
