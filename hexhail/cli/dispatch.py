"""`hexhail bench dispatch`: phased offers or batched windows, who comes to the rider sooner?"""

from __future__ import annotations

from datetime import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from benchmarks.dispatch import DispatchParams, run_dispatch
from benchmarks.dispatch_view import supply_table
from benchmarks.view import StepsView
from hexhail.cities import load_city

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.dispatch import Supply
    from benchmarks.figures import Report
    from hexhail.kernel.settings import Settings

_USUAL = DispatchParams(time(0, 0))


def add_dispatch(
    bench: typer.Typer,
    settings_of: Callable[[Path | None], Settings],
    check_json: Callable[[Path | None], None],
    finish: Callable[[Coroutine[Any, Any, Any]], Any],
    show: Callable[[Report, Path | None, Console], None],
) -> None:
    """Adds the command."""

    @bench.command("dispatch")
    def dispatch_command(
        json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.", dir_okay=False)] = None,
        plot: Annotated[
            Path | None, typer.Option("--plot", help="Draw pickup time by supply to this PNG.", dir_okay=False)
        ] = None,
        city: Annotated[str, typer.Option("--city", help="Whose roads and requests.")] = "manhattan",
        start: Annotated[str, typer.Option("--start", help="City time at which the hour begins, HH:MM.")] = "00:00",
        minutes: Annotated[float, typer.Option("--minutes", min=1.0, help="How long requests come in.")] = _USUAL.minutes,
        sample: Annotated[float, typer.Option("--sample", help="Share of the requests that is replayed.")] = _USUAL.sample,
        drivers: Annotated[list[int] | None, typer.Option("--drivers", min=1, help="How many; may be repeated.")] = None,
        seeds: Annotated[int, typer.Option("--seeds", min=1, help="Other starts and other answers, so often.")] = _USUAL.repeats,
        seed: Annotated[int, typer.Option("--seed", min=0, help="The first of them.")] = _USUAL.seed,
    ) -> None:
        """Phased offers or batched windows: how long is the way to the rider? On an hour of the city's real requests.

        Without options, every tenth of Manhattan's requests is replayed, with too few drivers, just enough, and plenty. Whoever
        dispatches meets the same drivers: they start in the same places, and answer the same ride alike.
        """
        settings = settings_of(None)
        check_json(json_file)
        check_json(plot)
        try:
            params = DispatchParams(
                start=time.fromisoformat(start),
                minutes=minutes,
                sample=sample,
                drivers=tuple(drivers) if drivers else tuple(round(each * sample / _USUAL.sample) for each in _USUAL.drivers),
                repeats=seeds,
                seed=seed,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        console = Console()
        with StepsView(console, "bench", params.steps) as steps:
            report, supplies = finish(_replayed(params, city, settings, steps))
        console.print(supply_table(supplies))
        if plot is not None:
            from benchmarks.dispatch_plot import draw_supplies  # noqa: PLC0415 - matplotlib is slow

            draw_supplies(supplies, plot)
            console.print(f"drawn to {plot}", soft_wrap=True)
        show(report, json_file, console)


async def _replayed(params: DispatchParams, city: str, settings: Settings, steps: StepsView) -> tuple[Report, list[Supply]]:
    return await run_dispatch(params, load_city(city, settings), settings.data, settings.cache_dir / "routing", steps)
