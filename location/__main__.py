"""The location service: settings, wiring, serve. `python -m location CITY...` serves these cities."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.cities import Cities, CityError, load_city, policy_of
from hexhail.embedded import StoreError, check_valkey
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.settings import Settings
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.logs import configure_logs
from hexhail.rpc.server import ListenError, Server, ServiceSpec, serving, until_told_to_stop
from location.counter import SupplyCounter
from location.finder import Finder
from location.ingester import Ingester
from location.metrics import LocationMetrics
from location.params import LocationParams
from location.redis_store import RedisLocationStore, connect
from location.servicer import ACCESS, FULL_NAME, CityLocation, LocationServicer
from location.sessions import Sessions
from location.sweeper import Sweeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import redis.asyncio

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock

log = structlog.get_logger(__name__)

RESTART_S = 1.0


def assemble(city: City, client: redis.asyncio.Redis, clock: Clock) -> CityLocation:
    """All that answers for one city. Raises CityError where its `[location]` section is wrong."""
    params = policy_of(city, "location", LocationParams)
    limit_ms = round(city.freshness_limit_s * 1000)
    store = RedisLocationStore(client, city.city_id, city.buckets)
    metrics = LocationMetrics()
    return CityLocation(
        city=city,
        params=params,
        store=store,
        sessions=Sessions(store, clock, metrics),
        ingester=Ingester(city, store, params, clock, metrics),
        finder=Finder(store, city.index_resolution, params.nearby, clock, metrics),
        counter=SupplyCounter(store, limit_ms, params.supply_max_age_ms, clock, metrics),
        sweeper=Sweeper(store, limit_ms, params, clock, metrics),
        metrics=metrics,
    )


async def _kept_running(name: str, run: Callable[[], Coroutine[None, None, None]], clock: Clock) -> None:
    while True:
        try:
            await run()
        except Exception:
            log.exception("background work failed: starting it again", work=name)
        await clock.sleep(RESTART_S)


@asynccontextmanager
async def running(cities: Cities, *, clock: Clock, token_key: bytes, listen: str, redis_url: str) -> AsyncIterator[Server]:
    """The service for the time of the block. Raises CityError and ListenError."""
    client = connect(redis_url)
    try:
        locations = {city.city_id: assemble(city, client, clock) for city in cities}
        spec = ServiceSpec(
            full_name=FULL_NAME,
            servicer=LocationServicer(cities, locations, clock),  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
            servicer_base=rpc.LocationServiceServicer,
            register=rpc.add_LocationServiceServicer_to_server,
            access=ACCESS,
        )
        tasks = [
            asyncio.create_task(_kept_running(f"{name} {location.city.city_id}", run, clock))
            for location in locations.values()
            for name, run in (("ingester", location.ingester.run), ("sweeper", location.sweeper.run))
        ]
        try:
            async with serving(spec, listen, token_key) as server:
                yield server
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await client.aclose()


async def serve(settings: Settings, city_ids: list[str]) -> None:
    """Serves these cities until told to stop. Raises CityError, StoreError, ListenError and ValueError, each one line."""
    if settings.redis_url is None:
        raise StoreError("HEXHAIL_REDIS_URL names no Valkey: set it, or use the hexhail command, which brings its own")
    await check_valkey(settings.redis_url)
    cities = Cities([load_city(city_id, settings) for city_id in city_ids])
    token_key = load_or_make_key(settings.data_dir, "token")
    clock = SystemClock(settings.clock_offset_ms)
    address = settings.location_address
    async with running(cities, clock=clock, token_key=token_key, listen=address, redis_url=settings.redis_url):
        await until_told_to_stop()


def main() -> int:
    """The exit code."""
    settings = Settings()
    configure_logs("location", settings.log_format, settings.log_level)
    try:
        asyncio.run(serve(settings, sys.argv[1:] or ["gridport"]))
    except (CityError, StoreError, ListenError, ValueError) as error:
        print(f"location: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
