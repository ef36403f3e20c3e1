"""How a service process lives: settings in, one line per complaint out, graceful at SIGTERM."""

from __future__ import annotations

import gc
import secrets
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from hexhail.cities import Cities, CityError, load_city
from hexhail.embedded import StoreError, check_postgres, check_valkey
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.randomness import generator
from hexhail.kernel.settings import Settings
from hexhail.rpc import loop
from hexhail.rpc.exporter import Exporter, MetricsError
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.logs import configure_logs
from hexhail.rpc.server import ListenError, Shell, until_told_to_stop
from hexhail.rpc.streams import StreamAge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from hexhail.kernel.clock import Clock

log = structlog.get_logger(__name__)

_WORKERS_STREAM_AGE_S = 600.0

_GARBAGE_THRESHOLDS: Final = (10_000, 20, 50)
"""A service makes thousands of small things a second, nearly none of them in circles: looking for those more rarely costs little
memory. As Python has it, 50,000 drivers' tables made one look in a hundred last 84 ms, in which nobody was answered; now 2 ms."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a service process is given."""

    settings: Settings
    cities: Cities
    clock: Clock
    token_key: bytes
    quote_key: bytes
    redis_url: str
    """Empty for a service that keeps nothing in Valkey."""
    postgres_dsn: str
    """Empty for a service that keeps nothing in PostgreSQL."""
    shell: Shell


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is made from its runtime."""

    name: str
    running: Callable[[Runtime], AbstractAsyncContextManager[object]]
    uses_postgres: bool = False
    uses_valkey: bool = True
    has_workers: bool = False
    """Several processes of it may share one port: none of them keeps what another must know."""


def shell_of(settings: Settings) -> Shell:
    """What settings say of a server, whatever its service."""
    age_s = settings.max_stream_age_s or (_WORKERS_STREAM_AGE_S if settings.worker_address else None)
    return Shell(
        worker_address=settings.worker_address,
        stream_age=None if age_s is None else StreamAge(age_s),
        chance=generator(secrets.randbits(64), "stream-age"),  # workers that began together must not end streams together
        exporter=Exporter(),
    )


async def prepare(settings: Settings, city_ids: Sequence[str], *, uses_postgres: bool, uses_valkey: bool = True) -> Runtime:
    """Settings turned into what a service needs, stores checked.

    Raises CityError, StoreError and ValueError, each of one line.
    """
    if uses_valkey:
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
        redis_url=settings.redis_url or "",
        postgres_dsn=settings.postgres_dsn or "",
        shell=shell_of(settings),
    )


def rest_from_garbage() -> None:
    """What is there by now stays for good: the collector of garbage looks at it no more, and at the rest more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def run_service(service: Service, settings: Settings, city_ids: Sequence[str]) -> int:
    """Serves until SIGTERM or SIGINT: the exit code. What cannot be served is one line on standard error, and not 0."""
    configure_logs(service.name, settings.log_format, settings.log_level)

    async def live() -> None:
        runtime = await prepare(settings, city_ids, uses_postgres=service.uses_postgres, uses_valkey=service.uses_valkey)
        async with AsyncExitStack() as stack:
            if settings.metrics_address:
                runtime.shell.exporter.show_process()
                stack.enter_context(runtime.shell.exporter.serving(settings.metrics_address))
            await stack.enter_async_context(service.running(runtime))
            rest_from_garbage()
            await until_told_to_stop()
            log.info("draining")

    try:
        loop.run(live())
    except (CityError, StoreError, ListenError, MetricsError, ValueError, OSError) as error:
        print(f"hexhail: {service.name}: {error}", file=sys.stderr)
        return 1
    return 0


def main_of(service: Service) -> int:
    """`python -m <service> CITY...`, with everything else from the environment."""
    return run_service(service, Settings(), sys.argv[1:] or ["gridport"])
