"""`hexhail bench eta`: how far off are travel times on rides that nothing was learned from?"""

from __future__ import annotations

from datetime import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from benchmarks.eta import EtaParams, run_eta
from benchmarks.view import StepsView
from hexhail.cities import load_city

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.eta import Predictions
    from benchmarks.figures import Report
    from hexhail.kernel.settings import Settings

RIDES: dict[str, tuple[str, time, time, time, time]] = {
    "manhattan": ("nyc_rides/rides.csv.gz", time(0, 15), time(0, 15), time(0, 30), time(1, 0)),
}
"""A city's file of rides: before when one learns, from and until when rides are asked about, and when the file ends."""


_Time = Annotated[str | None, typer.Option(help="Local time of day, HH:MM.")]


def add_eta(
    bench: typer.Typer,
    settings_of: Callable[[Path | None], Settings],
    check_json: Callable[[Path | None], None],
    finish: Callable[[Coroutine[Any, Any, Any]], Any],
    show: Callable[[Report, Path | None, Console], None],
) -> None:
    """Adds the command."""

    @bench.command("eta")
    def eta_command(
        json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.", dir_okay=False)] = None,
        plot: Annotated[Path | None, typer.Option("--plot", help="Draw the calibration to this PNG.", dir_okay=False)] = None,
        city: Annotated[str, typer.Option("--city", help="Whose roads.")] = "manhattan",
        learn: Annotated[
            Path | None, typer.Option("--learn", help="Rides to learn from; by default the city's own file.")
        ] = None,
        test: Annotated[Path | None, typer.Option("--test", help="Rides to ask about; by default the file learned from.")] = None,
        learn_until: _Time = None,
        test_from: _Time = None,
        test_until: _Time = None,
        seen_until: Annotated[
            str | None, typer.Option(help="HH:MM at which the file of rides ends: long rides begun late are missing from it.")
        ] = None,
    ) -> None:
        """How far off are travel times on rides that nothing was learned from? Beside those of one constant factor.

        A file holds taxi events (beginnings and ends as rows of their own), or a list of rides with a column duration_s. Without
        any option, Manhattan's rides that began before 00:15 teach, and those from 00:15 to 00:30 are asked about.
        """
        settings = settings_of(None)
        check_json(json_file)
        check_json(plot)
        asked = [
            _time(name, text)
            for name, text in (
                ("learn-until", learn_until),
                ("test-from", test_from),
                ("test-until", test_until),
                ("seen-until", seen_until),
            )
        ]
        times = asked
        if learn is None and test is None:
            if city not in RIDES:
                raise typer.BadParameter(f"{city} has no rides of its own: name files by --learn and --test")
            name, *usual = RIDES[city]
            learn = test = settings.data / name
            times = [given if given is not None else own for given, own in zip(asked, usual, strict=True)]
        learn_file = learn or test
        test_file = test or learn
        assert learn_file is not None and test_file is not None  # noqa: S101, PT018 - one of them was named
        try:
            params = EtaParams(learn_file, test_file, times[0], times[1], times[2], times[3])
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        console = Console()
        with StepsView(console, "bench", params.steps) as steps:
            report, predictions = finish(_asked(params, city, settings, steps))
        if plot is not None:
            from benchmarks.eta_plot import draw_calibration  # noqa: PLC0415 - no other command draws, and matplotlib is slow

            draw_calibration(predictions, plot)
            console.print(f"drawn to {plot}", soft_wrap=True)
        show(report, json_file, console)


def _time(name: str, text: str | None) -> time | None:
    if text is None:
        return None
    try:
        local = time.fromisoformat(text)
    except ValueError:
        local = None
    if local is None or local.tzinfo is not None:
        raise typer.BadParameter(f"--{name} {text!r} is not a local time such as 00:15")
    return local


async def _asked(params: EtaParams, city: str, settings: Settings, steps: StepsView) -> tuple[Report, Predictions]:
    return await run_eta(params, load_city(city, settings), settings.data, steps)
