"""How a service process lives: settings in, one line per complaint out, graceful at SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from hexhail.cities import Cities, CityError, load_city
from hexhail.embedded import StoreError, check_postgres, check_valkey
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.settings import Settings
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.logs import configure_logs
from hexhail.rpc.server import ListenError, until_told_to_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from hexhail.kernel.clock import Clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a service process is given."""

    settings: Settings
    cities: Cities
    clock: Clock
    token_key: bytes
    quote_key: bytes
    redis_url: str
    postgres_dsn: str
    """Empty for a service that keeps nothing in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is made from its runtime."""

    name: str
    running: Callable[[Runtime], AbstractAsyncContextManager[object]]
    uses_postgres: bool = False


async def prepare(settings: Settings, city_ids: Sequence[str], *, uses_postgres: bool) -> Runtime:
    """Settings turned into what a service needs, stores checked.

    Raises CityError, StoreError and ValueError, each of one line.
    """
    if settings.redis_url is None:
        raise StoreError("HEXHAIL_REDIS_URL is not set: give an address, or use `hexhail up`, which brings its own store")
    await check_valkey(settings.redis_url)
    if uses_postgres:
        if settings.postgres_dsn is None:
            raise StoreError("HEXHAIL_POSTGRES_DSN is not set: give an address, or use `hexhail up`, which brings its own store")
        await check_postgres(settings.postgres_dsn)
    return Runtime(
        settings=settings,
        cities=Cities([load_city(city_id, settings) for city_id in city_ids]),
        clock=SystemClock(settings.clock_offset_ms),
        token_key=load_or_make_key(settings.data_dir, "tokens"),
        quote_key=load_or_make_key(settings.data_dir, "quotes"),
        redis_url=settings.redis_url,
        postgres_dsn=settings.postgres_dsn or "",
    )


def run_service(service: Service, settings: Settings, city_ids: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT: the exit code. What cannot be served is one line on standard error, and not 0."""
    configure_logs(service.name, settings.log_format, settings.log_level)

    async def live() -> None:
        async with service.running(await prepare(settings, city_ids, uses_postgres=service.uses_postgres)):
            await until_told_to_stop()
            log.info("draining")

    try:
        asyncio.run(live())
    except (CityError, StoreError, ListenError, ValueError, OSError) as error:
        print(f"hexhail: {service.name}: {error}", file=sys.stderr)
        return 1
    return 0


def main_of(service: Service) -> int:
    """`python -m <service> CITY...`, with everything else from the environment."""
    return run_service(service, Settings(), sys.argv[1:] or ["gridport"])
