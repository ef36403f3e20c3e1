"""What the benchmark of matching runs on: stores of its own, drivers who are online, and location, pricing and matching."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import psutil

from benchmarks.calls_grpc import LocationCalls, why_not_serving
from benchmarks.places import BOX, FLEET
from benchmarks.stage import READY_S, STOP, CityPlan, free_address, made_city, service_launch
from hexhail.embedded.process import Child
from hexhail.embedded.stores import embedded_stores
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Role, mint_token
from matching.schema import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from benchmarks.hands import Hand
    from hexhail.cities import City
    from hexhail.embedded.stores import Stores

CITY_ID: Final = "bench"
ROADS: Final = "manhattan/manhattan_network.json"
SERVICES: Final = ("location", "pricing", "matching")
_CROW_POLICIES: Final = f"""
[routing]
kind = "crow"
detour_factor = 1.3
speed_kmh_by_hour = {[20] * 24}
"""
_ROAD_POLICIES: Final = f"""
[routing]
kind = "road"
file = "{ROADS}"
time_factor = 2.2
"""

_INSERT_DRIVERS: Final = """
INSERT INTO matching.drivers (city_id, driver_id, version, capabilities, rating_milli, online, updated_at_ms)
SELECT $1, driver_id, 1, ARRAY['economy'], 4800, online, 0 FROM unnest($2::text[], $3::boolean[]) AS d (driver_id, online)
"""
_RIDES: Final = "SELECT ride_id, state, body->'assignment'->>'driver_id' AS driver_id FROM matching.rides WHERE city_id = $1"
_ASSIGNMENTS: Final = """
SELECT driver_id, ride_id, accepted_at_ms, released_at_ms FROM matching.assignments WHERE city_id = $1
"""
_EVENTS: Final = "SELECT DISTINCT aggregate_id, kind FROM matching.outbox WHERE city_id = $1"


@dataclass(frozen=True, slots=True)
class Kept:
    """What PostgreSQL holds in the end.

    rides : ride id -> state, driver id or None
    assignments : driver id, ride id, from when until when (or None), Unix milliseconds
    events : ride id and kind of each event in the log
    """

    rides: dict[str, tuple[str, str | None]]
    assignments: tuple[tuple[str, str, int, int | None], ...]
    events: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class DispatchStage:
    """What runs, and how it is reached.

    addresses, pids : by service
    roads : what travel times are made of
    """

    city: City
    stores: Stores
    addresses: dict[str, str]
    pids: dict[str, int]
    token_key: bytes
    roads: str

    def calls(self) -> LocationCalls:
        """The calls of matching to location."""
        return LocationCalls(self.addresses["location"], self.token_key, self.city.city_id)

    @property
    def fleet_token(self) -> str:
        """The gateway's."""
        return mint_token(self.token_key, Role.FLEET, FLEET)

    def processor_s(self, hands: Sequence[Hand]) -> dict[str, float]:
        """How much processor time has each used so far, seconds? `load` is all that the benchmark itself has used."""
        used = {name: _used_s(pid) for name, pid in self.pids.items()}
        return {**used, "load": sum(_used_s(each.pid) for each in hands)}

    def resident_mb(self, service: str) -> float:
        """How much memory does it hold, its workers included, MB (1,000,000 bytes)?"""
        process = psutil.Process(self.pids[service])
        return sum(float(each.memory_info().rss) for each in (process, *process.children(recursive=True))) / 1e6

    async def kept(self) -> Kept:
        """What PostgreSQL holds of this city's rides."""
        connection = await asyncpg.connect(self.stores.postgres_dsn)
        try:
            rides = await connection.fetch(_RIDES, self.city.city_id)
            assignments = await connection.fetch(_ASSIGNMENTS, self.city.city_id)
            events = await connection.fetch(_EVENTS, self.city.city_id)
        finally:
            await connection.close()
        return Kept(
            {row["ride_id"]: (row["state"], row["driver_id"]) for row in rides},
            tuple(tuple(row) for row in assignments),
            frozenset((row["aggregate_id"], row["kind"]) for row in events),
        )


@asynccontextmanager
async def dispatch_stage(
    folder: Path, data_dir: Path, driver_ids: Sequence[str], online: Sequence[bool], index_resolution: int, workers: int = 1
) -> AsyncIterator[DispatchStage]:
    """Everything, for the time of the block, with its files in this folder. Raises StoreError where something does not start.

    `workers` processes of matching share its port. The drivers stand in PostgreSQL before matching starts, which then tells
    location of them as after any restart.
    """
    has_roads = (data_dir / ROADS).is_file()
    city = made_city(folder, CityPlan(CITY_ID, BOX, index_resolution, 1, _ROAD_POLICIES if has_roads else _CROW_POLICIES))
    token_key = load_or_make_key(folder, "tokens")
    load_or_make_key(folder, "quotes")
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(embedded_stores(folder))
        await migrate(stores.postgres_dsn)
        connection = await asyncpg.connect(stores.postgres_dsn)
        await connection.execute(_INSERT_DRIVERS, city.city_id, list(driver_ids), list(online))
        await connection.close()
        addresses = {service: free_address() for service in SERVICES}
        where = _where(folder, data_dir, stores, addresses)
        pids = _store_pids()
        children = {}
        for service in SERVICES:
            child = children[service] = Child(
                service_launch(service, folder, [city], where, workers if service == "matching" else 1)
            )
            stack.push_async_callback(child.stop, STOP)
        for service, child in children.items():
            await child.ready(_health(addresses[service]), READY_S)
            pids[service] = child.pid
        yield DispatchStage(city, stores, addresses, pids, token_key, "roads" if has_roads else "as the crow flies")


def _where(folder: Path, data_dir: Path, stores: Stores, addresses: dict[str, str]) -> dict[str, str]:
    return {
        "HEXHAIL_REDIS_URL": stores.redis_url,
        "HEXHAIL_POSTGRES_DSN": stores.postgres_dsn,
        "HEXHAIL_DATA": str(data_dir.resolve()),
        "HEXHAIL_CACHE_DIR": str(folder / "cache"),
        **{f"HEXHAIL_{service.upper()}_ADDRESS": address for service, address in addresses.items()},
    }


def _health(address: str) -> Any:
    async def attempt() -> str | None:
        return await why_not_serving(address)

    return attempt


def _store_pids() -> dict[str, int]:
    pids = {}
    for child in psutil.Process().children():
        words = " ".join(child.cmdline())
        for store in ("postgres", "valkey"):
            if store in words.partition(" ")[0]:
                pids[store] = child.pid
    return pids


def _used_s(pid: int) -> float:
    """Of a process, its living children, and those that it had."""
    process = psutil.Process(pid)
    ended = process.cpu_times()
    used_s = float(ended.children_user + ended.children_system)
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used_s += float(times.user + times.system)
    return used_s
