"""`hexhail bench`: what is fast, measured as ratios, on a store and a service of the benchmark's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import grpc
import typer
from rich.console import Console
from rich.text import Text

from benchmarks.assign import AssignParams, run_assign
from benchmarks.hands import HandError
from benchmarks.ingest import IngestParams, run_ingest
from benchmarks.match import MatchParams, run_match
from benchmarks.nearby import NearbyParams, run_nearby
from benchmarks.routing import RoutingParams, run_routing
from benchmarks.view import StepsView, report_table
from hexhail.cli.dispatch import add_dispatch
from hexhail.cli.errors import ServiceError
from hexhail.cli.eta import add_eta
from hexhail.cli.folders import temporary_data_dir
from hexhail.cli.running import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.kernel.settings import Settings

Params = TypeVar("Params", AssignParams, IngestParams, MatchParams, NearbyParams, RoutingParams)

_ASSIGN, _INGEST, _MATCH, _NEARBY, _ROUTING = AssignParams(), IngestParams(), MatchParams(), NearbyParams(), RoutingParams()

_Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.", dir_okay=False)]
_Seconds = Annotated[float, typer.Option(min=0.05, help="Of load; of ingest, in each repeat.")]
_Repeats = Annotated[int, typer.Option(min=1, help="Of everything that is measured, in turn with its baseline.")]
_Drivers = Annotated[int, typer.Option(min=1, help="Drivers who report in columns, and are found.")]
_Buckets = Annotated[int, typer.Option(min=1, help="Of the benchmark's city.")]
_Workers = Annotated[int, typer.Option(min=1, help="Processes of the location service.")]
_Resolution = Annotated[int, typer.Option(min=7, max=12, help="H3 resolution of the city's index.")]


def bench_commands(
    settings_of: Callable[[Path | None], Settings],
    check_json: Callable[[Path | None], None],
    finish: Callable[[Coroutine[Any, Any, Report]], Report],
) -> typer.Typer:
    """The benchmarks, made of what every command does around its own work.

    Each ends with exit code 1 where what was sent is not what was counted or found, and with 0 otherwise.
    """
    bench = typer.Typer(help="Benchmarks: ratios against something measured in the same run.", no_args_is_help=True)

    def measured(
        params: Params, run: Callable[[Params, Path, Path, Steps], Coroutine[Any, Any, Report]], json_file: Path | None
    ) -> None:
        settings = settings_of(None)
        check_json(json_file)
        console = Console()
        with temporary_data_dir() as folder, StepsView(console, "bench", params.steps) as steps:
            report = finish(_told(run(params, folder, settings.data, steps)))
        show(report, json_file, console)

    def show(report: Report, json_file: Path | None, console: Console) -> None:
        console.print(report_table(report))
        console.print(", ".join(f"{count:,} {what}" for what, count in report.checked.items()), soft_wrap=True, highlight=False)
        if json_file is not None:
            write_json(report.as_json(), json_file, console)
        if report.faults:
            for fault in report.faults[:20]:
                console.print(Text.assemble(("does not add up: ", "bold red"), fault), soft_wrap=True)
            console.print(f"[bold red]{len(report.faults):,} faults: these figures are worth nothing[/]")
            raise typer.Exit(1)

    @bench.command("ingest")
    def ingest_command(
        json_file: _Json = None,
        seconds: _Seconds = _INGEST.seconds,
        repeats: _Repeats = _INGEST.repeats,
        drivers: _Drivers = _INGEST.drivers,
        streams: Annotated[int, typer.Option(min=1, help="Single drivers, each on a stream of its own.")] = _INGEST.streams,
        rows: Annotated[int, typer.Option(min=1, max=10_000, help="Fixes of a batch of columns.")] = _INGEST.rows,
        idle_streams: Annotated[
            int, typer.Option(min=1, help="Streams opened to see what memory they take.")
        ] = _INGEST.idle_streams,
        buckets: _Buckets = _INGEST.buckets,
        workers: _Workers = _INGEST.workers,
        index_resolution: _Resolution = _INGEST.index_resolution,
    ) -> None:
        """How fast do fixes get into the index? Against streams that are discarded, and against the bare store."""
        params = _checked(
            IngestParams,
            seconds=seconds,
            repeats=repeats,
            drivers=drivers,
            streams=streams,
            rows=rows,
            idle_streams=idle_streams,
            buckets=buckets,
            workers=workers,
            index_resolution=index_resolution,
        )
        measured(params, run_ingest, json_file)

    @bench.command("nearby")
    def nearby_command(
        json_file: _Json = None,
        seconds: _Seconds = _NEARBY.seconds,
        repeats: _Repeats = _NEARBY.repeats,
        drivers: _Drivers = _NEARBY.drivers,
        questions: Annotated[
            int, typer.Option(min=1, help="Places asked about in each repeat, of the store alone.")
        ] = _NEARBY.questions,
        questions_per_s: Annotated[float, typer.Option(min=0.1, help="Questions through gRPC.")] = _NEARBY.questions_per_s,
        fixes_per_s: Annotated[float, typer.Option(min=1, help="Fixes that flow meanwhile.")] = _NEARBY.fixes_per_s,
        buckets: _Buckets = _NEARBY.buckets,
        workers: _Workers = _NEARBY.workers,
        index_resolution: _Resolution = _NEARBY.index_resolution,
    ) -> None:
        """How fast are the nearest drivers found? Against plain GEOSEARCH, and through gRPC while fixes flow."""
        params = _checked(
            NearbyParams,
            seconds=seconds,
            repeats=repeats,
            drivers=drivers,
            questions=questions,
            questions_per_s=questions_per_s,
            fixes_per_s=fixes_per_s,
            buckets=buckets,
            workers=workers,
            index_resolution=index_resolution,
        )
        measured(params, run_nearby, json_file)

    @bench.command("routing")
    def routing_command(
        json_file: _Json = None,
        repeats: _Repeats = _ROUTING.repeats,
        questions: Annotated[int, typer.Option(min=1, help="Requests in each repeat.")] = _ROUTING.questions,
        large_nodes: Annotated[int, typer.Option(help="Junctions of the large town.")] = _ROUTING.large_nodes,
        grid_nodes: Annotated[
            int, typer.Option(help="Junctions of the large even grid, a hierarchy's worst case; 0 leaves it out.")
        ] = _ROUTING.grid_nodes,
    ) -> None:
        """How fast are travel times on roads? By tables, while they are made anew, and on a town too large for them.

        Manhattan's streets come from the data folder; without it a made-up grid of their size takes their place.
        """
        params = _checked(RoutingParams, repeats=repeats, questions=questions, large_nodes=large_nodes, grid_nodes=grid_nodes)
        measured(params, run_routing, json_file)

    @bench.command("match")
    def match_command(
        json_file: _Json = None,
        rate: Annotated[float, typer.Option(min=0.1, help="Rides a second while latency is measured.")] = _MATCH.rate,
        seconds: Annotated[float, typer.Option(min=0.05, help="So long is latency measured.")] = _MATCH.seconds,
        warm_s: Annotated[float, typer.Option(min=0, help="Seconds of load before that.")] = _MATCH.warm_s,
        first_rate: Annotated[float, typer.Option(min=0.1, help="The first rate tried for the highest one.")] = _MATCH.first_rate,
        last_rate: Annotated[float, typer.Option(min=0, help="The last; below the first, none is tried.")] = _MATCH.last_rate,
        growth: Annotated[float, typer.Option(help="From rate to rate.")] = _MATCH.growth,
        step_s: Annotated[float, typer.Option(min=0.05, help="Seconds at each rate.")] = _MATCH.step_s,
        drivers: _Drivers = _MATCH.drivers,
        online: Annotated[
            int | None, typer.Option(min=1, help="Drivers with an open stream for offers; all, where not said.")
        ] = None,
        report_s: Annotated[float, typer.Option(min=0.1, help="Every driver reports so often.")] = _MATCH.report_s,
        think_s: Annotated[float, typer.Option(min=0.01, help="From an offer to its acceptance, in the mean.")] = _MATCH.think_s,
        ride_s: Annotated[float, typer.Option(min=0.05, help="From acceptance to drop-off.")] = _MATCH.ride_s,
        late_s: Annotated[float, typer.Option(min=0.05, help="So much later is a ride still served in time.")] = _MATCH.late_s,
        index_resolution: _Resolution = _MATCH.index_resolution,
        workers: Annotated[int, typer.Option(min=1, help="Processes of the matching service.")] = _MATCH.workers,
    ) -> None:
        """How soon does a ride find its driver, and how many rides a second are carried through?

        Whole rides, compressed in time: price, request, offers, acceptance, pickup, drop-off, positions all the while.
        """
        params = _checked(
            MatchParams,
            rate=rate,
            seconds=seconds,
            warm_s=warm_s,
            first_rate=first_rate,
            last_rate=last_rate,
            growth=growth,
            step_s=step_s,
            drivers=drivers,
            online=drivers if online is None else online,
            report_s=report_s,
            think_s=think_s,
            ride_s=ride_s,
            late_s=late_s,
            index_resolution=index_resolution,
            workers=workers,
        )
        measured(params, run_match, json_file)

    _add_assign(bench, measured)
    add_eta(bench, settings_of, check_json, finish, show)
    add_dispatch(bench, settings_of, check_json, finish, show)
    return bench


def _add_assign(bench: typer.Typer, measured: Callable[[Any, Any, Path | None], None]) -> None:
    @bench.command("assign")
    def assign_command(
        json_file: _Json = None,
        repeats: _Repeats = _ASSIGN.repeats,
        rides: Annotated[int, typer.Option(min=1, help="Of the sparse window.")] = _ASSIGN.rides,
        drivers: Annotated[int, typer.Option(min=1, help="Of the sparse window.")] = _ASSIGN.drivers,
        candidates: Annotated[int, typer.Option(min=1, help="Of each ride, those who are there soonest.")] = _ASSIGN.candidates,
        dense_rides: Annotated[int, typer.Option(min=1, help="Of the full table.")] = _ASSIGN.dense_rides,
        dense_drivers: Annotated[int, typer.Option(min=1, help="Of the full table.")] = _ASSIGN.dense_drivers,
    ) -> None:
        """How fast is a window assigned, candidates by road time included? Against scipy's solvers and a plain loop.

        Manhattan's streets come from the data folder; without it a made-up grid of their size takes their place.
        """
        params = _checked(
            AssignParams,
            repeats=repeats,
            rides=rides,
            drivers=drivers,
            candidates=candidates,
            dense_rides=dense_rides,
            dense_drivers=dense_drivers,
        )
        measured(params, run_assign, json_file)


def _checked(kind: type[Params], **asked: Any) -> Params:
    try:
        return kind(**asked)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _told(work: Coroutine[Any, Any, Report]) -> Report:
    try:
        return await work
    except grpc.aio.AioRpcError as error:
        raise ServiceError(f"a service says {error.code().name}: {error.details()}") from error
    except HandError as error:
        raise ServiceError(f"the load has failed: {error}") from error
