"""The pricing service, wired and served."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexhail.api.pricing.v1.pricing_service_pb2_grpc import (
    PricingServiceServicer,
    add_PricingServiceServicer_to_server,
)
from hexhail.cities import CityError
from hexhail.kernel.units import MS_PER_S
from hexhail.rpc.background import background
from hexhail.rpc.channel import PeerToken, peer_channel
from hexhail.rpc.server import Server, ServiceSpec, serving
from hexhail.rpc.service import Service, main_of
from hexhail.stores.valkey import connect
from pricing.board import Board
from pricing.location_grpc import LocationSupply
from pricing.matching_grpc import MatchingDemand
from pricing.params import pricing_params
from pricing.quoter import QuotedCity, Quoter
from pricing.quotes import KEY_BYTES
from pricing.recorder import QuoteRecorder
from pricing.redis_store import RedisPricingStore
from pricing.repricer import RepricedCity, Repricer
from pricing.servicer import ACCESS, FULL_NAME, PricingServicer
from routing.city import sources_of
from routing.sources import loops_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.rpc.server import Shell
    from hexhail.rpc.service import Runtime
    from routing.sources import RouterSource


@dataclass(frozen=True, slots=True)
class Running:
    """A pricing service that serves."""

    server: Server
    repricer: Repricer

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return self.server.address


@asynccontextmanager
async def running(
    cities: Cities,
    *,
    clock: Clock,
    token_key: bytes,
    quote_key: bytes,
    listen: str,
    redis_url: str,
    location_address: str,
    matching_address: str,
    sources: Mapping[CityId, RouterSource],
    shell: Shell | None = None,
) -> AsyncIterator[Running]:
    """Serves pricing, and keeps surge up to date, for the time of the block; `sources` of travel times are closed at its end.

    Raises CityError for a city's wrong [pricing] section or missing travel times, ListenError, ValueError for a bad key.
    """
    if len(quote_key) != KEY_BYTES:
        raise ValueError(f"the quote key has {len(quote_key)} bytes instead of {KEY_BYTES}")
    params = {city.city_id: pricing_params(city) for city in cities}
    for city_id in params:
        if city_id not in sources:
            raise CityError(f"{city_id} has no travel times")
    async with AsyncExitStack() as stack:
        for source in sources.values():
            stack.push_async_callback(source.aclose)
        client = connect(redis_url)
        stack.push_async_callback(client.aclose)
        store = RedisPricingStore(client)
        location = await stack.enter_async_context(peer_channel(location_address))
        matching = await stack.enter_async_context(peer_channel(matching_address))
        token = PeerToken(token_key, "pricing")
        board = Board({city_id: one.surge_max_age_s for city_id, one in params.items()})
        recorders = {
            city.city_id: QuoteRecorder(city, store, round(params[city.city_id].quote_window_s * MS_PER_S)) for city in cities
        }
        repricer = Repricer(
            {city.city_id: RepricedCity(city, params[city.city_id], recorders[city.city_id]) for city in cities},
            clock=clock,
            board=board,
            store=store,
            supply=LocationSupply(location, token),
            requests=MatchingDemand(matching, token),
        )
        servicer = PricingServicer(  # type: ignore[abstract]  # what is not built, the interceptor answers
            cities,
            quoted={
                city.city_id: QuotedCity(city, params[city.city_id], sources[city.city_id], recorders[city.city_id])
                for city in cities
            },
            quoter=Quoter(clock=clock, board=board, quote_key=quote_key),
            board=board,
            clock=clock,
        )
        spec = ServiceSpec(
            FULL_NAME,
            servicer,
            PricingServiceServicer,
            add_PricingServiceServicer_to_server,
            ACCESS,
            beginning=frozenset({"GetQuotes"}),
        )
        await stack.enter_async_context(background({"repricer": repricer.run, **loops_of(sources)}, clock))

        async def prices_known() -> None:
            for city_id in params:
                await board.other_than(city_id, None)

        server = await stack.enter_async_context(serving(spec, listen, token_key, prices_known, shell))
        yield Running(server, repricer)


def from_runtime(runtime: Runtime) -> AbstractAsyncContextManager[Running]:
    """The service that settings describe."""
    settings = runtime.settings
    return running(
        runtime.cities,
        clock=runtime.clock,
        token_key=runtime.token_key,
        quote_key=runtime.quote_key,
        listen=settings.pricing_address,
        redis_url=runtime.redis_url,
        location_address=settings.location_address,
        matching_address=settings.matching_address,
        sources=sources_of(runtime.cities, settings),
        shell=runtime.shell,
    )


SERVICE = Service("pricing", from_runtime)

if __name__ == "__main__":
    raise SystemExit(main_of(SERVICE))
