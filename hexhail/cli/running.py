"""The long commands: `up`, `demo`, `drive` and several workers of a service, as coroutines."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from hexhail.cli.folders import socket_dir
from hexhail.cli.outbox import end_of_log, logged_assignments
from hexhail.cli.ports import shared_port
from hexhail.cli.processes import Plan, kept_running, service_processes, workers
from hexhail.cli.town import Town, town_of
from hexhail.client import Addresses, Channels, OperatorApp
from hexhail.embedded import StoreError, check_postgres, check_valkey, embedded_stores
from hexhail.embedded.errors import shown
from hexhail.kernel.clock import SystemClock
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Role, mint_token
from simulator.live import run_live
from simulator.params import LiveParams
from simulator.view import CityFrame, summary_table, view_for
from simulator.witness import double_assignments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from hexhail.cli.town import Wish
    from hexhail.embedded import Stores
    from hexhail.kernel.settings import Settings
    from simulator.summary import Summary
    from simulator.witness import Interval

_STORE_LOOK_S, _STORE_MISSES = 2.0, 3
TOKEN_KEY = "tokens"  # noqa: S105 - a file's name


def addresses_of(settings: Settings) -> Addresses:
    """Where the settings say that the services listen."""
    return Addresses(settings.location_address, settings.matching_address, settings.pricing_address)


def sockets_in(folder: Path) -> Addresses:
    """Sockets that no other run can take."""
    return Addresses(*(f"unix:{folder}/{name}.sock" for name in ("location", "matching", "pricing")))


async def up(
    settings: Settings, city_ids: Sequence[str], clock_offset_ms: int, console: Console, location_workers: int = 1
) -> None:
    """Everything, until told to stop. Raises StoreError, ServiceError."""
    addresses, sockets = addresses_of(settings), None
    with ExitStack() as held:
        stop = held.enter_context(_stop_event())
        if location_workers > 1:
            addresses = replace(addresses, location=held.enter_context(shared_port("location", addresses.location)))
            sockets = held.enter_context(socket_dir())
        async with embedded_stores(settings.data_dir, redis_url=settings.redis_url, postgres_dsn=settings.postgres_dsn) as stores:
            plan = Plan(settings, city_ids, addresses, stores, settings.data_dir, clock_offset_ms, location_workers, sockets)
            async with service_processes(plan):
                console.print(f"[bold green]Hexhail is up[/] for {', '.join(city_ids)}. Stop it with Ctrl-C.")
                for name in ("location", "matching", "pricing"):
                    console.print(f"  {name:9} {getattr(addresses, name)}")
                console.print(f"  {'valkey':9} {shown(stores.redis_url)}", soft_wrap=True)
                console.print(f"  logs and data in {settings.data_dir}", soft_wrap=True)
                console.print("  why did a ride go as it did? hexhail explain RIDE_ID")
                await until_stopped(stop, stores)
                console.print("draining ...")


async def serve_workers(service: str, settings: Settings, city_ids: Sequence[str], count: int, console: Console) -> None:
    """So many processes of one service at one address, until told to stop. Raises ServiceError."""
    key = f"{service}_address"
    with _stop_event() as stop, shared_port(service, getattr(settings, key)) as address, socket_dir() as sockets:
        processes = workers(service, settings.model_copy(update={key: address}), city_ids, count, sockets)
        async with kept_running(processes):
            console.print(
                f"{service} is served at {address} by {count} workers, with logs in {settings.data_dir}", soft_wrap=True
            )
            await stop.wait()
            console.print("draining ...")


async def until_stopped(stop: asyncio.Event, stores: Stores) -> None:
    """Returns when told to stop. Raises StoreError when a store has not answered for some seconds."""
    misses = 0
    while not stop.is_set():
        try:
            await asyncio.gather(check_valkey(stores.redis_url), check_postgres(stores.postgres_dsn))
            misses = 0
        except StoreError:
            misses += 1
            if misses == _STORE_MISSES:
                raise
        with suppress(TimeoutError):
            async with asyncio.timeout(_STORE_LOOK_S):
                await stop.wait()


async def demo(settings: Settings, data_dir: Path, wish: Wish, clock_offset_ms: int | None, console: Console) -> Summary | None:
    """A whole city of its own, with the live simulator in it; None where it was stopped before it had begun.

    Raises StoreError, ServiceError, CityError, ValueError, OSError.
    """
    with _stop_event() as stop:
        async with AsyncExitStack() as stack:
            console.print(f"starting Valkey and PostgreSQL, reading {wish.city_id} ...")
            loading = asyncio.ensure_future(asyncio.to_thread(town_of, wish, settings))
            try:
                stores = await stack.enter_async_context(
                    embedded_stores(data_dir, redis_url=settings.redis_url, postgres_dsn=settings.postgres_dsn)
                )
            finally:
                town = await loading
            if clock_offset_ms is None:
                clock_offset_ms = offset_to(town.requests.start_ms)
            addresses = sockets_in(data_dir)
            console.print("starting location, matching and pricing ...")
            plan = Plan(settings, [wish.city_id], addresses, stores, data_dir, clock_offset_ms)
            await stack.enter_async_context(service_processes(plan))
            if stop.is_set():
                return None
            token_key = load_or_make_key(data_dir, TOKEN_KEY)
            before = await end_of_log(stores.postgres_dsn)
            summary, _ = await _live(town, wish, addresses, token_key, clock_offset_ms, stop, console)
            logged = await logged_assignments(stores.postgres_dsn, wish.city_id, before)
            return summary.with_outbox(double_assignments(logged))


async def drive(
    settings: Settings, addresses: Addresses, wish: Wish, clock_offset_ms: int | None, console: Console
) -> tuple[Summary, str]:
    """The live simulator in a city that runs already, and one ride that somebody may want explained; empty where nobody rode.

    Raises CityError, ValueError, OSError, DomainError, RpcError.
    """
    with _stop_event() as stop:
        town = await asyncio.to_thread(town_of, wish, settings)
        token_key = load_or_make_key(settings.data_dir, TOKEN_KEY)
        summary, rides = await _live(town, wish, addresses, token_key, clock_offset_ms or 0, stop, console)
        return summary, max(rides).ride_id if rides else ""


async def erase_driver(settings: Settings, addresses: Addresses, city_id: str, driver_id: str) -> bool:
    """Has a running location forget a driver; was anything known? Raises DomainError, RpcError."""
    token = mint_token(load_or_make_key(settings.data_dir, TOKEN_KEY), Role.OPERATOR, "hexhail")
    async with Channels(addresses) as channels:
        return await OperatorApp(channels, city_id, "hexhail", token).erase_driver(driver_id)


async def _live(
    town: Town,
    wish: Wish,
    addresses: Addresses,
    token_key: bytes,
    clock_offset_ms: int,
    stop: asyncio.Event,
    console: Console,
) -> tuple[Summary, list[Interval]]:
    params = LiveParams(
        city=wish.city_id,
        seed=wish.seed,
        minutes=town.minutes,
        drivers=len(town.starts),
        sample=wish.sample,
        traffic=town.traffic,
    )
    console.print(
        f"{town.city.name}: {len(town.requests):,} requests, {len(town.starts):,} drivers"
        + (f", {town.minutes:g} minutes" if town.minutes else "")
    )
    with view_for(CityFrame(town.city.name, town.city.time_zone, town.starts), console) as view:
        summary, intervals = await run_live(
            params,
            town.requests,
            town.starts,
            town.router,
            addresses,
            lambda role, subject: mint_token(token_key, Role(role), subject),
            stop=stop,
            clock=SystemClock(clock_offset_ms),
            progress=view,
            rows_dropped=town.rows_dropped,
        )
    asked = {"requests_file": str(wish.requests_file) if wish.requests_file else None, "start": wish.start}
    return replace(summary, parameters={**summary.parameters, **asked}), intervals


def report(summary: Summary, json_file: Path | None, console: Console) -> None:
    """Prints the summary, and writes it as JSON. Raises OSError."""
    console.print(summary_table(summary))
    if json_file is not None:
        write_json(summary.as_json(), json_file, console)


def write_json(document: Mapping[str, object], json_file: Path, console: Console) -> None:
    """Writes it, whole or not at all, and says so. Raises OSError."""
    draft = json_file.with_name(f".{json_file.name}.tmp")
    draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draft.replace(json_file)
    console.print(f"written to {json_file}", soft_wrap=True)


def offset_to(at_ms: int | None) -> int:
    """How far must clocks be moved for it to be this time now? 0 where no time is named."""
    return 0 if at_ms is None else at_ms - SystemClock().now_ms()


@contextmanager
def _stop_event() -> Iterator[asyncio.Event]:
    """Set by SIGINT and SIGTERM; a second signal gives up at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and main_task is not None:
            main_task.cancel()
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
