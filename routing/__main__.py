"""The learner of traffic: settings, wiring, learn. `python -m routing CITY...` learns the traffic of these cities."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from hexhail.cities import CityError
from hexhail.rpc.background import background
from hexhail.rpc.channel import PeerToken, peer_channel
from hexhail.rpc.server import Server, ServiceSpec, Shell, serving
from hexhail.rpc.service import Service, main_of
from routing.city import is_learned, learned_city
from routing.learner import Learner
from routing.location_grpc import WatchedFleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from hexhail.cities import City
    from hexhail.kernel.clock import Clock
    from hexhail.rpc.service import Runtime
    from routing.city import LearnedCity

FULL_NAME: Final = "hexhail.routing.TrafficLearner"


class _NoMethods:
    """It is asked for its health alone."""


def _register(_: object, __: object) -> None:
    """There is nothing to serve."""


@asynccontextmanager
async def running(
    cities: Sequence[tuple[City, LearnedCity]],
    *,
    clock: Clock,
    token_key: bytes,
    listen: str,
    location_address: str,
    shell: Shell | None = None,
) -> AsyncIterator[Server]:
    """Learns for the time of the block. Raises ListenError."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(peer_channel(location_address))
        token = PeerToken(token_key, "traffic")
        loops = {}
        for city, known in cities:
            learner = Learner(known.router, known.path, city.time_zone, known.params, clock)
            loops[f"learner {city.city_id}"] = partial(learner.run, WatchedFleet(channel, token, city))
        await stack.enter_async_context(background(loops, clock))
        spec = ServiceSpec(FULL_NAME, _NoMethods(), _NoMethods, _register, {})
        yield await stack.enter_async_context(serving(spec, listen, token_key, shell=shell))


def from_runtime(runtime: Runtime) -> AbstractAsyncContextManager[Server]:
    """The learner that settings describe. Raises CityError where no city asks for one."""
    settings = runtime.settings
    cities = [(city, learned_city(city, settings)) for city in runtime.cities if is_learned(city)]
    if not cities:
        raise CityError("none of these cities has a [routing.traffic] section: there is nothing to learn")
    return running(
        cities,
        clock=runtime.clock,
        token_key=runtime.token_key,
        listen=settings.traffic_address,
        location_address=settings.location_address,
        shell=runtime.shell,
    )


SERVICE = Service("traffic", from_runtime, uses_valkey=False)

if __name__ == "__main__":
    raise SystemExit(main_of(SERVICE))
