"""A whole city in one process: the three services over real sockets with real tokens, on a clock that a test moves."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import location.__main__
import matching.__main__
import pricing.__main__
from hexhail.cities import Cities, City, load_city
from hexhail.client import Addresses, Channels, DriverApp, FleetApp, OperatorApp, RiderApp
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.settings import Settings
from hexhail.rpc.tokens import Role, mint_token
from routing.city import router_for
from routing.sources import FixedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from hexhail.embedded import Stores
    from matching.store import Claims
    from routing.model import Router
    from routing.sources import RouterSource

START_MS = 1_357_017_600_000  # 2013-01-01T00:20 in New York
SNAPSHOT_MS = 2_001  # after this long, location counts supply anew
TOKEN_KEY, QUOTE_KEY = b"t" * 32, b"q" * 32


@dataclass(frozen=True, slots=True)
class World:
    """A city at work."""

    city: City
    clock: ManualClock
    router: Router
    addresses: Addresses
    channels: Channels
    location: Any
    matching: matching.__main__.Running
    pricing: pricing.__main__.Running

    def token(self, role: Role, subject: str) -> str:
        """A real token."""
        return mint_token(TOKEN_KEY, role, subject)

    def rider(self, rider_id: str = "r1") -> RiderApp:
        """A rider's app."""
        return RiderApp(self.channels, self.city.city_id, rider_id, self.token(Role.RIDER, rider_id))

    def driver(self, driver_id: str = "d1") -> DriverApp:
        """A driver's app."""
        return DriverApp(self.channels, self.city.city_id, driver_id, self.token(Role.DRIVER, driver_id))

    def operator(self) -> OperatorApp:
        """An operator's desk."""
        return OperatorApp(self.channels, self.city.city_id, "o1", self.token(Role.OPERATOR, "o1"))

    def fleet(self, fleet_id: str = "acme") -> FleetApp:
        """A fleet's gateway."""
        return FleetApp(self.channels, self.city.city_id, fleet_id, self.token(Role.FLEET, fleet_id), 0)


def gridport(**policies: Mapping[str, object]) -> City:
    """Gridport, with other policies in some sections."""
    city = load_city("gridport", Settings())
    return replace(city, policies={**city.policies, **policies})


@asynccontextmanager
async def world_of(
    stores: Stores,
    city: City,
    clock: ManualClock | None = None,
    wrap_claims: Callable[[Claims], Claims] = lambda claims: claims,
    source: RouterSource | None = None,
) -> AsyncIterator[World]:
    """Location, matching and pricing of one city, on empty stores, for the time of the block.

    `source` is where its travel times come from; by default always the same.
    """
    clock = clock or ManualClock(START_MS)
    router = router_for(city.policies["routing"], city.time_zone, Path(), None)
    cities, sources = Cities([city]), {city.city_id: source or FixedSource(router)}
    common: dict[str, Any] = {"clock": clock, "token_key": TOKEN_KEY, "redis_url": stores.redis_url}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hx"))
        names = ("location", "matching", "pricing")
        at = {name: f"unix:{folder}/{name}.sock" for name in names}
        where = await stack.enter_async_context(location.__main__.running(cities, listen=at["location"], **common))
        who = await stack.enter_async_context(
            matching.__main__.running(
                cities,
                listen=at["matching"],
                postgres_dsn=stores.postgres_dsn,
                location_address=at["location"],
                pricing_address=at["pricing"],
                sources=sources,
                wrap_claims=wrap_claims,
                **common,
            )
        )
        price = await stack.enter_async_context(
            pricing.__main__.running(
                cities,
                listen=at["pricing"],
                quote_key=QUOTE_KEY,
                location_address=at["location"],
                matching_address=at["matching"],
                sources=sources,
                **common,
            )
        )
        addresses = Addresses(at["location"], at["matching"], at["pricing"])
        channels = Channels(addresses)
        stack.push_async_callback(channels.close)
        await who.teller.check_epochs()
        clock.advance(SNAPSHOT_MS)
        await price.repricer.recompute()
        yield World(city, clock, router, addresses, channels, where, who, price)
