"""`hexhail chaos`: services are killed and stores lost while a crowd rides; then all that anybody was told is checked."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.crowd import Crowd, CrowdParams
from benchmarks.ending_wire import ending_of, free_drivers, open_rides
from benchmarks.history import OK, UNKNOWN, deadlines_late_ms
from benchmarks.history_checks import CheckParams, Kind, Violation, violations
from hexhail.cities import load_city
from hexhail.cities.loader import city_files
from hexhail.cli.folders import socket_dir, temporary_data_dir
from hexhail.cli.mortals import MortalService, MortalStores, logged, mortal_services, raised, repaired
from hexhail.cli.ports import shared_port
from hexhail.cli.town import Wish, town_of
from hexhail.client import Addresses, Channels, until_open
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.errors import DomainError
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId
from hexhail.kernel.randomness import generator
from hexhail.rpc.channel import PeerToken, peer_channel
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Role, mint_token
from matching.location_grpc import GrpcLocation
from matching.params import Dispatch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from benchmarks.history import Ending
    from hexhail.kernel.settings import Settings

TOKEN_KEY = "tokens"  # noqa: S105 - a file's name
_SHORT = """
[matching]
dispatch = "{dispatch}"

[matching.offers]
phases = [
  {{ size = 3, timeout_s = 1.5, radius_m = 2000.0 }},
  {{ size = 3, timeout_s = 1.5, radius_m = 2000.0 }},
  {{ size = 3, timeout_s = 1.5, radius_m = 5000.0 }},
]
search_limit_s = 8.0
retry_s = 0.5
pickup_limit_s = 5.0
no_show_after_s = 4.0
ride_limit_s = 5.0

[matching.offers.schedule]
min_ahead_s = 1.0
expected_pickup_s = 1.0
max_pickup_s = 1.5
margin_s = 0.5
late_s = 6.0
busy_retry_s = 0.5

[matching.progress]
progress_check_s = 1.0
checks_without_progress = 2
near_s = 5.0
"""
"""Every deadline of a ride within seconds: a ride that is lost sight of is seen to end."""
_MATCHING_SHARE, _OUTAGE_SHARE = 0.7, 0.3
_FROZEN_S = (0.5, 6.0)
_TRIPS = 500
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class ChaosParams:
    """One run. Faults come at times drawn from the seed.

    workers : processes of matching that share its port
    kills_per_minute : of services, most of them of matching; fewer where a machine is too slow to bring them back
    cuts_per_minute : breaks of all connections to the stores, which themselves go on
    freezes_per_minute : workers of matching that stop for some seconds, and go on as if nothing had happened
    settle_s : so long may it take at most until everything has come to its end
    """

    city_id: str = "gridport"
    seed: int = 1
    minutes: float = 2.0
    workers: int = 2
    drivers: int = 60
    rides_per_s: float = 15.0
    kills_per_minute: float = 10.0
    wipes_per_minute: float = 4.0
    restarts_per_minute: float = 2.0
    cuts_per_minute: float = 10.0
    freezes_per_minute: float = 4.0
    dispatch: Dispatch = Dispatch.PHASED
    settle_s: float = 60.0

    def faults(self) -> list[tuple[float, str]]:
        """When does what happen? (seconds, kind), in order; of each kind that is wanted one at least."""
        dice, seconds = generator(self.seed, "faults"), self.minutes * 60
        rates = {
            "kill": self.kills_per_minute,
            "wipe": self.wipes_per_minute,
            "restart": self.restarts_per_minute,
            "cut": self.cuts_per_minute,
            "freeze": self.freezes_per_minute,
        }
        counts = {kind: max(1, round(rate * self.minutes)) if rate > 0 else 0 for kind, rate in rates.items()}
        return sorted((float(dice.uniform(0.05, 0.95)) * seconds, kind) for kind, count in counts.items() for _ in range(count))


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """What came of a run.

    double_assignments, lost, stuck : violations of those kinds (told otherwise counts as lost)
    repaired, repairs : how much the reconcilers put right, by kind
    settled_s : how long it took from the end of the storm until everything had come to its end
    agreed_s : how long it took from then until location found exactly the drivers who are free
    deadline_late_s : how late, after their time was over, offers expired
    told, refusals : words of rides, refusals by reason
    unknown, unquoted : calls whose answer never came; riders who were given no price
    errors, warnings : what services logged; raised : what they had not expected, whole
    falls : last words of services that ended by themselves, for want of a store, say
    """

    parameters: Mapping[str, object]
    rides: int
    states: Mapping[str, int]
    kills: int
    wipes: int
    restarts: int
    cuts: int
    freezes: int
    double_assignments: int
    lost: int
    stuck: int
    repaired: int
    repairs: Mapping[str, int]
    violations: Sequence[Violation]
    settled_s: float
    agreed_s: float
    told: int
    refusals: Mapping[str, int]
    unknown: Mapping[str, int]
    unquoted: Mapping[str, int]
    errors: Mapping[str, int]
    warnings: Mapping[str, int]
    raised: Sequence[str]
    falls: Sequence[str]
    deadline_late_s: Mapping[str, float]

    def as_json(self) -> dict[str, object]:
        """For a file."""
        return asdict(self)


class Storm:
    """Services, stores and a crowd, while faults happen."""

    def __init__(self, params: ChaosParams, crowd: Crowd, stores: MortalStores, services: Sequence[MortalService]) -> None:
        self._params = params
        self._crowd = crowd
        self._stores = stores
        self._services = services
        self._dice = generator(params.seed, "storm")
        self.freezes = 0

    async def blow(self, say: Callable[[str], None]) -> None:
        """Faults happen, each at its time or as soon as the one before is over. Raises the first defect of the crowd's."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for at_s, kind in self._params.faults():
            await asyncio.sleep(max(0.0, began_s + at_s - loop.time()))
            what = await self._happen(kind)
            say(f"{loop.time() - began_s:6.1f} s  {what}; {self._crowd.requested:,} riders so far")
            self._must_be_sound()
        await asyncio.sleep(max(0.0, began_s + self._params.minutes * 60 - loop.time()))
        self._must_be_sound()

    async def _happen(self, kind: str) -> str:
        if kind == "kill":
            return self._kill()
        if kind == "freeze":
            return self._freeze()
        if kind == "cut":
            await self._stores.cut()
            return "every connection to the stores is cut"
        if kind == "wipe":
            if self._dice.random() < 2 / 3:
                await self._stores.wipe()
                return "Valkey is wiped"
            await self._stores.restart_valkey()
            return "Valkey is replaced"
        how = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)[int(self._dice.integers(3))]
        await self._stores.restart_postgres(how)
        return f"PostgreSQL is restarted by {how.name}"

    def _kill(self) -> str:
        """One that serves; the last one of matching only now and then, for then nobody serves at all."""
        matching = [service for service in self._services if service.process.service == "matching" and service.serves]
        others = [service for service in self._services if service.process.service != "matching" and service.serves]
        wants_matching, wants_all = self._dice.random() < _MATCHING_SHARE, self._dice.random() < _OUTAGE_SHARE
        some = matching if wants_matching and (len(matching) > 1 or wants_all) else others or matching
        if not some:
            return "nobody is killed, for nobody serves"
        service = some[int(self._dice.integers(len(some)))]
        service.kill()
        return f"{service.process.name} is killed"

    def _freeze(self) -> str:
        matching = [service for service in self._services if service.process.service == "matching" and service.serves]
        if not matching:
            return "nobody is frozen, for nobody serves"
        service, seconds = matching[int(self._dice.integers(len(matching)))], float(self._dice.uniform(*_FROZEN_S))
        self.freezes += 1
        self._crowd.begin(service.freeze(seconds))
        return f"{service.process.name} is frozen for {seconds:.1f} s"

    def _must_be_sound(self) -> None:
        if self._crowd.failures:
            raise self._crowd.failures[0]


async def run_chaos(params: ChaosParams, settings: Settings, folder: Path, say: Callable[[str], None]) -> ChaosReport:
    """A storm, the calm after it, and the verdict. `folder` is the run's own.

    Raises StoreError, ServiceError, CityError, ValueError, OSError, DomainError, RpcError.
    """
    clock = SystemClock()
    city_id = params.city_id
    settings = settings.model_copy(update={"cities_dir": _short_city(params, settings, folder), "data_dir": folder})
    town = await asyncio.to_thread(town_of, Wish(city_id, None, None, 10.0, params.drivers, 1.0, params.seed), settings)
    stores = MortalStores(folder)
    async with AsyncExitStack() as stack:
        sockets = stack.enter_context(socket_dir())
        matching = stack.enter_context(shared_port("matching", "127.0.0.1:0"))
        addresses = Addresses(f"unix:{sockets}/location.sock", matching, f"unix:{sockets}/pricing.sock")
        say("starting the stores")
        stack.push_async_callback(stores.stop)
        await stores.start()
        settings = settings.model_copy(
            update={
                "redis_url": stores.redis_url,
                "postgres_dsn": stores.postgres_dsn,
                "location_address": addresses.location,
                "matching_address": addresses.matching,
                "pricing_address": addresses.pricing,
                "log_format": "json",
                "clock_offset_ms": 0,
                "metrics_address": "",
            }
        )
        say("starting the services")
        services = await stack.enter_async_context(mortal_services(settings, city_id, params.workers, sockets))
        key = load_or_make_key(folder, TOKEN_KEY)

        def tokens(role: Role, subject: str) -> str:
            return mint_token(key, role, subject)

        await until_open(addresses, city_id, tokens(Role.OPERATOR, "chaos"))
        channels = await stack.enter_async_context(Channels(addresses, per_service=8))
        trips = np.stack([town.requests.pickup, town.requests.dropoff], axis=1)[:_TRIPS]
        asked = CrowdParams(city_id, params.seed, params.drivers, params.rides_per_s)
        crowd = Crowd(asked, channels, tokens, clock, town.starts, trips)
        stack.push_async_callback(crowd.close)
        await crowd.open()
        riding = crowd.begin(crowd.ride())
        say(f"{params.drivers} drivers, {params.rides_per_s:g} riders a second, for {params.minutes:g} minutes")
        storm = Storm(params, crowd, stores, services)
        await storm.blow(say)
        say("the storm is over: everything settles")
        began_s = asyncio.get_running_loop().time()
        crowd.closing.set()
        await asyncio.wait((riding,))
        await _settled(params, crowd, stores)
        settled_s = asyncio.get_running_loop().time() - began_s
        differ, agreed_s = await _disagreed(params, crowd, stores, addresses.location, key)
        ending = await ending_of(stores.postgres_dsn, city_id, clock.now_ms())
        return _report(params, crowd, stores, services, ending, settled_s, differ, agreed_s, storm.freezes)


def _short_city(params: ChaosParams, settings: Settings, folder: Path) -> Path:
    """A folder with the city's file, its deadlines made short. Raises CityError, ValueError."""
    city_id = params.city_id
    city = load_city(city_id, settings)
    own = {"offers", "progress", "dispatch"} & set(city.policies["matching"])
    if own:
        raise ValueError(f"{city_id}: a city with matching.{min(own)} of its own cannot be had with short deadlines")
    text = city_files(settings)[city_id].read_text(encoding="utf-8")
    cities = folder / "cities"
    cities.mkdir()
    (cities / f"{city_id}.toml").write_text(text + _SHORT.format(dispatch=params.dispatch.value), encoding="utf-8")
    return cities


async def _settled(params: ChaosParams, crowd: Crowd, stores: MortalStores) -> None:
    """Returns once every ride is final and every rider has been told so, or when the time for that is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(params.settle_s):
            while (  # noqa: ASYNC110 - no event tells of it
                crowd.busy_riders or crowd.history.showing or await open_rides(stores.postgres_dsn, params.city_id)
            ):
                await asyncio.sleep(_LOOK_S)


async def _disagreed(
    params: ChaosParams, crowd: Crowd, stores: MortalStores, address: str, key: bytes
) -> tuple[list[Violation], float]:
    """Where location and PostgreSQL differ on who is free, even when they have had their time; and how long they took."""
    began_s = asyncio.get_running_loop().time()
    middle, differ = Place(*crowd.starts.mean(axis=0).tolist()), [Violation(Kind.NOT_FREE, "", "", "location does not answer")]
    with suppress(TimeoutError):
        async with asyncio.timeout(params.settle_s), peer_channel(address) as channel:
            location = GrpcLocation(channel, PeerToken(key, "matching"))
            while differ:
                await asyncio.sleep(_LOOK_S)
                with suppress(DomainError):  # killed last, it is not back yet
                    near = await location.nearby(CityId(params.city_id), middle, 1_000, 20_000.0, [], "")
                    found, free = set(near.driver_ids), await free_drivers(stores.postgres_dsn, params.city_id)
                    differ = [Violation(Kind.NOT_FREE, "", driver, "is free, and not found") for driver in sorted(free - found)]
                    differ += [Violation(Kind.NOT_FREE, "", driver, "is found, and not free") for driver in sorted(found - free)]
    return differ, asyncio.get_running_loop().time() - began_s


def _report(
    params: ChaosParams,
    crowd: Crowd,
    stores: MortalStores,
    services: Sequence[MortalService],
    ending: Ending,
    settled_s: float,
    differ: list[Violation],
    agreed_s: float,
    freezes: int,
) -> ChaosReport:
    wrong = [*violations(crowd.history, ending, CheckParams()), *differ]
    repairs = repaired(services)
    kinds = Counter(violation.kind for violation in wrong)
    answers = [answer for answer in crowd.history.answers if answer.outcome not in {OK, UNKNOWN}]
    late_ms = deadlines_late_ms(ending.log)
    return ChaosReport(
        parameters=asdict(params),
        rides=len(ending.rides),
        states=dict(Counter(ride.state for ride in ending.rides)),
        kills=sum(service.kills for service in services),
        wipes=stores.wipes,
        restarts=stores.restarts,
        cuts=stores.cuts,
        freezes=freezes,
        double_assignments=kinds[Kind.DOUBLE_ASSIGNMENT],
        lost=kinds[Kind.LOST] + kinds[Kind.CONTRADICTED],
        stuck=kinds[Kind.STUCK],
        repaired=repairs.total(),
        repairs=dict(repairs),
        violations=wrong,
        settled_s=round(settled_s, 1),
        agreed_s=round(agreed_s, 1),
        told=len(crowd.history.told),
        refusals=dict(Counter(f"{answer.call} {answer.outcome}" for answer in answers)),
        unknown=dict(crowd.unknown),
        unquoted=dict(crowd.unquoted),
        errors=dict(logged(services, "error", "critical")),
        warnings=dict(logged(services, "warning")),
        raised=tuple(raised(services)),
        falls=tuple(words for service in services for words in service.falls),
        deadline_late_s={f"p{p}": round(float(np.percentile(late_ms, p)) / 1000, 3) for p in (50, 95, 100)} if late_ms else {},
    )


def report_table(report: ChaosReport) -> Table:
    """The end of a run, for people."""

    def told(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "none"

    table = Table(title="What came of the storm", title_justify="left", show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    late = ", ".join(f"{name} {value:g} s" for name, value in report.deadline_late_s.items())
    for name, value in (
        ("rides", f"{report.rides:,}: {told(report.states)}"),
        (
            "faults",
            f"{report.kills} services killed, Valkey lost {report.wipes} times, PostgreSQL restarted {report.restarts} times",
        ),
        ("checked", f"{report.told:,} words of rides"),
        ("double assignments", str(report.double_assignments)),
        ("lost", str(report.lost)),
        ("stuck", str(report.stuck)),
        ("repaired", told(report.repairs)),
        ("settled", f"{report.settled_s:g} s after the storm; location agreed {report.agreed_s:g} s later"),
        ("offers over late by", late or "none were over"),
        ("refusals", told(report.refusals)),
        ("riders without a price", told(report.unquoted)),
        ("answers that never came", told(report.unknown)),
        ("errors logged", told(report.errors)),
        ("fell by themselves", str(len(report.falls))),
    ):
        table.add_row(name, value)
    return table


def add_chaos(
    app: typer.Typer,
    settings_of: Callable[[Path | None], Settings],
    check_json: Callable[[Path | None], None],
    finish: Callable[[Coroutine[Any, Any, ChaosReport]], ChaosReport],
    write: Callable[[Mapping[str, object], Path, Console], None],
) -> None:
    """Adds the command, made of what every command does around its own work."""
    default = ChaosParams()

    @app.command("chaos")
    def chaos_command(
        minutes: Annotated[float, typer.Option(min=0.1, help="How long the storm lasts.")] = default.minutes,
        seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same people and the same faults.")] = default.seed,
        city: Annotated[str, typer.Option("--city", help="Where.")] = default.city_id,
        workers: Annotated[int, typer.Option(min=1, help="Processes of matching.")] = default.workers,
        drivers: Annotated[int, typer.Option(min=1, help="How many.")] = default.drivers,
        rides_per_s: Annotated[float, typer.Option(min=0.1, help="New riders a second.")] = default.rides_per_s,
        kills: Annotated[float, typer.Option(min=0, help="Services killed a minute; 0: none.")] = default.kills_per_minute,
        wipes: Annotated[float, typer.Option(min=0, help="Losses of Valkey a minute; 0: none.")] = default.wipes_per_minute,
        restarts: Annotated[
            float, typer.Option(min=0, help="Restarts of PostgreSQL a minute; 0: none.")
        ] = default.restarts_per_minute,
        cuts: Annotated[
            float, typer.Option(min=0, help="Breaks of all connections to the stores a minute.")
        ] = default.cuts_per_minute,
        freezes: Annotated[float, typer.Option(min=0, help="Workers frozen for a while, a minute.")] = default.freezes_per_minute,
        dispatch: Annotated[Dispatch, typer.Option(help="How rides find drivers.")] = default.dispatch,
        json_file: Annotated[Path | None, typer.Option("--json", help="Also write the findings here.", dir_okay=False)] = None,
    ) -> None:
        """Kills services and stores while a crowd rides, and checks all that anybody was told against PostgreSQL.

        Everything runs on stores and services of its own, deadlines made short. Exit code 1 where anything is wrong.
        """
        settings = settings_of(None)
        check_json(json_file)
        console = Console()
        params = ChaosParams(city, seed, minutes, workers, drivers, rides_per_s, kills, wipes, restarts, cuts, freezes, dispatch)
        with temporary_data_dir() as folder:
            said = partial(console.print, soft_wrap=True, markup=False, highlight=False)
            report = finish(run_chaos(params, settings, folder, said))
        console.print(report_table(report))
        if json_file is not None:
            write(report.as_json(), json_file, console)
        for violation in report.violations[:40]:
            console.print(f"{violation.kind} {violation.ride_id} {violation.driver_id}: {violation.what}", soft_wrap=True)
        if report.violations:
            console.print(f"[bold red]{len(report.violations):,} violations[/]")
            raise typer.Exit(1)
