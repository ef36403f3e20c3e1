"""What does one see of a live run? A frame in a terminal, or plain lines where there is none; and the table at its end."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from simulator.chart import Mark, box_around, braille

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from rich.console import Console, RenderableType

    from hexhail.kernel.units import Floats
    from simulator.progress import LiveState
    from simulator.summary import Summary

MAP_WIDTH, MAP_HEIGHT = 44, 18
"""In characters."""
NEWS = 5
"""So many of the latest events are shown."""


class CityFrame:
    """What a view needs to know of the city: its name, its time zone, and the frame of its map."""

    def __init__(self, name: str, time_zone: str, places: Floats) -> None:
        """`places` : float64[n, 2], lat and lng in degrees, that the map shall hold (drivers' starts, say); one at least."""
        self.name = name
        self.zone = ZoneInfo(time_zone)
        self.box = box_around(places, MAP_WIDTH, MAP_HEIGHT)

    def time_of(self, at_ms: int) -> str:
        """The city's own time."""
        return datetime.fromtimestamp(at_ms / 1000, self.zone).strftime("%H:%M:%S")

    def date_of(self, at_ms: int) -> str:
        """The city's own date."""
        return datetime.fromtimestamp(at_ms / 1000, self.zone).strftime("%a %d %b %Y")


def frame(city: CityFrame, state: LiveState) -> RenderableType:
    """One frame of the terminal view."""
    head = Text.assemble(
        (f" {city.name} ", "bold reverse"),
        f"  {city.date_of(state.city_ms)}  ",
        (city.time_of(state.city_ms), "bold"),
        f"  {state.phase}  ",
        (_clock(state), "dim"),
    )
    body = Table.grid(padding=(0, 2))
    body.add_row(Panel(_map(city, state), title="drivers, requests, surge", width=MAP_WIDTH + 4), _figures(state))
    news = Text("\n").join(Text.assemble((city.time_of(at_ms), "dim"), "  ", what) for at_ms, what in state.news[-NEWS:])
    return Group(head, body, Panel(news, title="lately", height=NEWS + 2))


def plain_line(city: CityFrame, state: LiveState) -> str:
    """One line of progress, for a file or a pipe."""
    rides = state.rides
    surge = "-" if state.surge_max_milli is None else f"{max(state.surging.values(), default=1000) / 1000:.1f}x"
    return (
        f"{city.name} {city.time_of(state.city_ms)} {state.phase}: {rides.requests} requests, {rides.matched} matched, "
        f"{state.searching} searching, {state.on_ride} on ride, {rides.completed} completed, "
        f"match p50 {_ms(rides.match_ms['p50'])} p95 {_ms(rides.match_ms['p95'])}, "
        f"{state.fixes_per_s:.0f} fixes/s, surge {surge} in {len(state.surging)} cells, {state.rpc_errors} errors"
    )


def summary_table(summary: Summary) -> RenderableType:
    """The end of a run, for people."""
    table = Table(title="What came of it", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rides = summary.rides
    outcomes = (
        f"{rides.matched} matched + {rides.cancelled} cancelled + {rides.expired} expired + {rides.open_at_end} open at end"
    )
    rows: list[tuple[str, str]] = [
        ("requests", f"{rides.requests} = {outcomes}"),
        ("completed", str(rides.completed)),
        ("request to driver named", _spread({name: _ms(value) for name, value in rides.match_ms.items()})),
        ("request to pickup", _spread({name: _s(value) for name, value in rides.pickup_s.items()})),
        ("arrivals against the promise", _errors(rides.eta_error_s)),
        ("trips against the quote", _errors(rides.trip_error_s)),
        ("fixes", f"{summary.fixes_sent} sent, {summary.fixes_accepted} accepted{_counts(summary.fixes_dropped, ', dropped: ')}"),
        ("surge", "unknown" if summary.surge_max is None else f"up to {summary.surge_max:.1f}x, {summary.cells_surging} cells"),
        ("double assignments", str(summary.double_assignments)),
        ("refusals", _counts(summary.refusals) or "none"),
        ("rpc errors", _counts(summary.rpc_errors_by_method) or "none"),
    ]
    optional = (
        ("requests without a ride", _counts(rides.requests_failed)),
        ("rows dropped", _counts(summary.rows_dropped)),
        ("streams opened again", _counts(summary.streams_reopened)),
        ("streams cut off", str(summary.streams_cut_off) if summary.streams_cut_off else ""),
    )
    rows.extend((name, text) for name, text in optional if text)
    for name, text in rows:
        bad = name in {"double assignments", "rpc errors", "streams cut off"} and text not in {"0", "none"}
        table.add_row(name, Text(text, style="bold red" if bad else ""))
    return table


class TerminalView:
    """Shows a run on a terminal, once a second."""

    period_s = 1.0

    def __init__(self, city: CityFrame, console: Console) -> None:
        self._city = city
        self._live = Live(console=console, auto_refresh=False, screen=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, state: LiveState) -> None:
        """The run stands like this now."""
        self._live.update(frame(self._city, state), refresh=True)


class PlainView:
    """Prints a line about a run every five seconds."""

    period_s = 5.0

    def __init__(self, city: CityFrame, console: Console) -> None:
        self._city = city
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, state: LiveState) -> None:
        """The run stands like this now."""
        self._console.print(plain_line(self._city, state), soft_wrap=True, markup=False, highlight=False)


def view_for(city: CityFrame, console: Console) -> TerminalView | PlainView:
    """The view that suits this console."""
    return TerminalView(city, console) if console.is_terminal else PlainView(city, console)


def _map(city: CityFrame, state: LiveState) -> Text:
    cells = {cell: "bold white on red" if milli >= 2000 else "black on yellow" for cell, milli in state.surging.items()}
    marks = (
        Mark(state.drivers[~state.busy], "green"),
        Mark(state.drivers[state.busy], "cyan"),
        Mark(state.open_pickups, "bold magenta"),
    )
    drawn = braille(city.box, MAP_WIDTH, MAP_HEIGHT, marks, cells)
    legend = Text.assemble(
        ("⣿", "green"), " idle  ", ("⣿", "cyan"), " busy  ", ("⣿", "bold magenta"), " waiting  ",
        (" surge ", "black on yellow"), " ", (" 2x up ", "bold white on red"),
    )  # fmt: skip
    return Text("\n").join([drawn, legend])


def _figures(state: LiveState) -> Table:
    rides = state.rides
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="bold")
    table.add_column()
    now_milli = max(state.surging.values(), default=1000)
    surge = "-" if state.surge_max_milli is None else f"{now_milli / 1000:.1f}x"
    highest = "" if state.surge_max_milli is None else f"surge in {len(state.surging)} cells (highest so far"
    highest = f"{highest} {(state.surge_max_milli or 0) / 1000:.1f}x, {state.cells_surging} cells)" if highest else "surge"
    rows: list[tuple[str, str]] = [
        (str(rides.requests), "requests"),
        (str(rides.matched), "matched"),
        (str(state.searching), "searching"),
        (str(state.on_ride), "drivers on a ride"),
        (str(rides.completed), "completed"),
        (str(rides.cancelled + rides.expired), "cancelled or expired"),
        ("", ""),
        (_ms(rides.match_ms["p50"]), "until a driver is named, half of all"),
        (_ms(rides.match_ms["p95"]), "95 of 100"),
        (_s(rides.pickup_s["p50"]), "until the pickup, half of all"),
        (_s(rides.eta_error_s["p50"]), "off the promised arrival, half of all"),
        ("", ""),
        (str(len(state.drivers)), "drivers"),
        (f"{state.fixes_per_s:.0f}", "fixes a second"),
        (surge, highest),
        ("", ""),
        (str(state.calls_ok), "calls that went well"),
        (str(state.refused), "refused, as happens (a ride already taken, say)"),
        (str(state.rpc_errors), "errors"),
    ]
    for figure, name in rows:
        table.add_row(Text(figure, style="red" if name == "errors" and figure != "0" else ""), name)
    return table


def _clock(state: LiveState) -> str:
    gone = f"{int(state.elapsed_s) // 60}:{int(state.elapsed_s) % 60:02d}"
    if state.total_s is None or math.isinf(state.total_s):
        return f"{gone} (Ctrl-C ends it)"
    return f"{gone} of {int(state.total_s) // 60}:{int(state.total_s) % 60:02d}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _errors(errors_s: Mapping[str, float | None]) -> str:
    mean_s = errors_s["mean"]
    if mean_s is None:
        return "-"
    late = f"{abs(mean_s):.0f} s {'late' if mean_s > 0 else 'early'} in the mean"
    return f"half within {_s(errors_s['p50'])}, 9 of 10 within {_s(errors_s['p90'])}; {late}, of {errors_s['n']:.0f}"


def _spread(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _counts(counts: Mapping[str, int], before: str = "") -> str:
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{before}{listed}" if listed else ""
