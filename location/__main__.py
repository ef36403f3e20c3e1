"""The location service: settings, wiring, serve. `python -m location CITY...` serves these cities."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.cities import Cities, policy_of
from hexhail.rpc.background import background
from hexhail.rpc.server import Server, ServiceSpec, Shell, serving
from hexhail.rpc.service import Service, main_of
from hexhail.stores.valkey import open_valkey
from location.batch_finder import BatchFinder
from location.counter import SupplyCounter
from location.finder import Finder
from location.ingester import Ingester
from location.metrics import LocationMetrics
from location.mirror import Mirror
from location.params import LocationParams
from location.redis_store import SCRIPTS, RedisLocationStore
from location.road_finder import RoadFinder
from location.servicer import ACCESS, FULL_NAME, GOODBYES, READERS, CityLocation, LocationServicer
from location.sessions import Sessions
from location.sweeper import Sweeper
from location.watcher import Watcher
from location.zones import Zones
from routing.city import sources_of
from routing.sources import loops_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.rpc.service import Runtime
    from hexhail.stores.valkey import Valkey
    from routing.sources import RouterSource


def assemble(city: City, valkey: Valkey, clock: Clock, travel_times: RouterSource | None = None) -> CityLocation:
    """All that answers for one city, by distance only where it has no travel times.

    Raises CityError where its `[location]` section is wrong.
    """
    params = policy_of(city, "location", LocationParams)
    limit_ms = round(city.freshness_limit_s * 1000)
    store = RedisLocationStore(valkey, city.city_id, city.buckets)
    metrics = LocationMetrics()
    mirror = Mirror(store, limit_ms, clock, metrics)
    finder = Finder(store, city.index_resolution, params.nearby, clock, metrics)
    return CityLocation(
        city=city,
        params=params,
        store=store,
        sessions=Sessions(store, clock, metrics),
        ingester=Ingester(city, store, params, clock, metrics),
        finder=finder,
        road_finder=RoadFinder(finder, travel_times, params.nearby, clock, metrics) if travel_times else None,
        mirror=mirror,
        counter=SupplyCounter(mirror, params.supply_max_age_ms, clock, metrics),
        watcher=Watcher(mirror, limit_ms, clock, metrics),
        batch_finder=BatchFinder(mirror, clock, metrics),
        sweeper=Sweeper(store, limit_ms, params, clock, metrics),
        zones=Zones(city.area, city.zones, city.index_resolution, params.zones),
        metrics=metrics,
    )


@asynccontextmanager
async def running(
    cities: Cities,
    *,
    clock: Clock,
    token_key: bytes,
    listen: str,
    redis_url: str,
    sources: Mapping[CityId, RouterSource] | None = None,
    shell: Shell | None = None,
) -> AsyncIterator[Server]:
    """The service for the time of the block; `sources` of travel times, of those cities that have some, are closed at its end.

    Raises CityError and ListenError.
    """
    shell = shell or Shell()
    sources = sources or {}
    async with AsyncExitStack() as stack:
        for source in sources.values():
            stack.push_async_callback(source.aclose)
        valkey = open_valkey(redis_url, SCRIPTS)
        stack.push_async_callback(valkey.aclose)
        locations = {city.city_id: assemble(city, valkey, clock, sources.get(city.city_id)) for city in cities}
        shell.exporter.show("location", {city_id: location.metrics for city_id, location in locations.items()})
        spec = ServiceSpec(
            full_name=FULL_NAME,
            servicer=LocationServicer(cities, locations, clock),
            servicer_base=rpc.LocationServiceServicer,
            register=rpc.add_LocationServiceServicer_to_server,
            access=ACCESS,
            readers=READERS,
            goodbyes=GOODBYES,
        )
        loops = {
            f"{name} {location.city.city_id}": run
            for location in locations.values()
            for name, run in (
                ("ingester", location.ingester.run),
                ("sweeper", location.sweeper.run),
                ("mirror", location.mirror.run),
            )
        }
        await stack.enter_async_context(background({**loops, **loops_of(sources)}, clock))
        yield await stack.enter_async_context(serving(spec, listen, token_key, shell=shell))


def from_runtime(runtime: Runtime) -> AbstractAsyncContextManager[Server]:
    """The service that settings describe."""
    return running(
        runtime.cities,
        clock=runtime.clock,
        token_key=runtime.token_key,
        listen=runtime.settings.location_address,
        redis_url=runtime.redis_url,
        sources=sources_of(Cities([city for city in runtime.cities if city.policies["routing"]]), runtime.settings),
        shell=runtime.shell,
    )


SERVICE = Service("location", from_runtime, has_workers=True)

if __name__ == "__main__":
    raise SystemExit(main_of(SERVICE))
