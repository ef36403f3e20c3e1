"""`hexhail bench`: what is fast, measured as ratios, on a store and a service of the benchmark's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import grpc
import typer
from rich.console import Console

from benchmarks.hands import HandError
from benchmarks.ingest import IngestParams, run_ingest
from benchmarks.nearby import NearbyParams, run_nearby
from benchmarks.view import StepsView, report_table
from hexhail.cli.folders import temporary_data_dir
from hexhail.cli.processes import ServiceError
from hexhail.cli.running import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.kernel.settings import Settings

Params = TypeVar("Params", IngestParams, NearbyParams)

_Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.", dir_okay=False)]
_Seconds = Annotated[float | None, typer.Option(min=0.05, help="Of load, in each repeat (nearby: of questions through gRPC).")]
_Repeats = Annotated[int | None, typer.Option(min=1, help="Of everything that is measured, in turn with its baseline.")]
_Drivers = Annotated[int | None, typer.Option(min=1, help="Drivers who report in columns, and are found.")]
_Buckets = Annotated[int | None, typer.Option(min=1, help="Of the benchmark's city.")]
_Workers = Annotated[int | None, typer.Option(min=1, help="Processes of the location service.")]
_Resolution = Annotated[int | None, typer.Option(min=7, max=12, help="H3 resolution of the city's index.")]


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
        console.print(report_table(report))
        console.print(", ".join(f"{count:,} {what}" for what, count in report.checked.items()), soft_wrap=True, highlight=False)
        if json_file is not None:
            write_json(report.as_json(), json_file, console)
        if report.faults:
            for fault in report.faults[:20]:
                console.print(f"[bold red]does not add up:[/] {fault}", soft_wrap=True, highlight=False)
            console.print(f"[bold red]{len(report.faults):,} faults: these figures are worth nothing[/]")
            raise typer.Exit(1)

    @bench.command("ingest")
    def ingest_command(
        json_file: _Json = None,
        seconds: _Seconds = None,
        repeats: _Repeats = None,
        drivers: _Drivers = None,
        streams: Annotated[int | None, typer.Option(min=1, help="Single drivers, each on a stream of its own.")] = None,
        rows: Annotated[int | None, typer.Option(min=1, max=10_000, help="Fixes of a batch of columns.")] = None,
        idle_streams: Annotated[int | None, typer.Option(min=1, help="Streams opened to see what memory they take.")] = None,
        buckets: _Buckets = None,
        workers: _Workers = None,
        index_resolution: _Resolution = None,
    ) -> None:
        """How fast do fixes get into the index? Against streams that are discarded, and against the bare store."""
        asked = {
            "seconds": seconds,
            "repeats": repeats,
            "drivers": drivers,
            "streams": streams,
            "rows": rows,
            "idle_streams": idle_streams,
            "buckets": buckets,
            "workers": workers,
            "index_resolution": index_resolution,
        }
        measured(_asked(IngestParams(), asked), run_ingest, json_file)

    @bench.command("nearby")
    def nearby_command(
        json_file: _Json = None,
        seconds: _Seconds = None,
        repeats: _Repeats = None,
        drivers: _Drivers = None,
        questions: Annotated[
            int | None, typer.Option(min=1, help="Places asked about in each repeat, of the store alone.")
        ] = None,
        questions_per_s: Annotated[float | None, typer.Option(min=0.1, help="Questions through gRPC.")] = None,
        fixes_per_s: Annotated[float | None, typer.Option(min=1, help="Fixes that flow meanwhile.")] = None,
        buckets: _Buckets = None,
        workers: _Workers = None,
        index_resolution: _Resolution = None,
    ) -> None:
        """How fast are the nearest drivers found? Against plain GEOSEARCH, and through gRPC while fixes flow."""
        asked = {
            "seconds": seconds,
            "repeats": repeats,
            "drivers": drivers,
            "questions": questions,
            "questions_per_s": questions_per_s,
            "fixes_per_s": fixes_per_s,
            "buckets": buckets,
            "workers": workers,
            "index_resolution": index_resolution,
        }
        measured(_asked(NearbyParams(), asked), run_nearby, json_file)

    return bench


def _asked(defaults: Params, asked: dict[str, Any]) -> Params:
    try:
        return replace(defaults, **{name: value for name, value in asked.items() if value is not None})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _told(work: Coroutine[Any, Any, Report]) -> Report:
    try:
        return await work
    except grpc.aio.AioRpcError as error:
        raise ServiceError(f"the location service says {error.code().name}: {error.details()}") from error
    except HandError as error:
        raise ServiceError(f"the load has failed: {error}") from error
