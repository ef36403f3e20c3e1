"""`hexhail traffic`: what is known of a city's traffic, learned from a file of rides, and drawn."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from hexhail.cities import City, load_city
from hexhail.cli.town import default_city
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.units import MS_PER_S
from routing.city import is_learned, learned_city
from routing.knowledge import beliefs_in
from routing.learning import fit_to_learn, hours_of, learn_rides
from routing.patches import patches_of
from routing.published import router_in
from routing.road import RoadRouter
from routing.state_file import read_state, state_of, write_state
from routing.tables import load_tables
from simulator.timed_rides import load_timed_rides

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.settings import Settings
    from routing.city import LearnedCity
    from routing.joining import JoinedRouter
    from routing.learning import TimedRides
    from routing.state_file import TrafficState

_CityName = Annotated[
    str | None, typer.Option("--city", help="Which city; by default manhattan where its data is found, else gridport.")
]
_DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the services keep their data, the traffic too.")]


def traffic_commands(settings_of: Callable[[Path | None], Settings], fail: Callable[[str], NoReturn]) -> typer.Typer:
    """The commands. `fail` ends with a line."""
    traffic = typer.Typer(
        help="What is known of a city's traffic: learned from rides, drawn as a map. A running city learns by itself.",
        no_args_is_help=True,
    )

    @traffic.command("learn")
    def learn_command(
        rides: Annotated[Path, typer.Option("--rides", help="A file of rides whose durations are known.", dir_okay=False)],
        city: _CityName = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Write it here; by default where the city's services look.", dir_okay=False)
        ] = None,
        data_dir: _DataDir = None,
    ) -> None:
        """Learns what is usual from a file of rides, and keeps it where the city's services find it.

        The file holds taxi events (beginnings and ends as rows of their own), or a list with the columns o_lat, o_lon, d_lat,
        d_lon, departure_time, passengers and duration_s. What the city had learned before is replaced. Services that run take it
        up within a second; a learner that runs already does not: stop it before.
        """
        settings, console = settings_of(data_dir), Console()
        try:
            with console.status("reading the roads") as status:
                found, known = _learned_city(city, settings)
                free = _free_flow(known, settings)
                status.update("reading the rides")
                read, unread = load_timed_rides(rides, found.time_zone)
                now_ms = SystemClock(settings.clock_offset_ms).now_ms()
                state, used, unfit = _learn(found, known, free, read, now_ms, status.update)
                path = known.path if out is None else out
                status.update("writing it, with its travel times")
                version = router_in(known.router, state).version if out is None else ""
                write_state(path, state)
        except (ValueError, OSError) as error:
            fail(str(error))
        console.print(_account(state, used, unread | unfit, version))
        console.print(f"written to {path}", soft_wrap=True)

    @traffic.command("show")
    def show_command(
        out: Annotated[Path, typer.Option("--out", help="The PNG to draw.", dir_okay=False)],
        city: _CityName = None,
        state_file: Annotated[
            Path | None, typer.Option("--state", help="Traffic learned to a file; by default what the services go by.")
        ] = None,
        data_dir: _DataDir = None,
    ) -> None:
        """Draws the city's streets, coloured by how many times as long as on empty streets driving takes."""
        from routing.traffic_plot import draw_traffic  # noqa: PLC0415 - no other command draws, and matplotlib is slow

        settings, console = settings_of(data_dir), Console()
        try:
            with console.status("reading the roads"):
                found, known = _learned_city(city, settings)
                streets = known.router.free_flow
                path = state_file or known.path
                if not path.is_file():
                    fail(
                        f"nothing is known of {found.city_id}'s traffic yet: {path} is not there; let the city run, or see learn"
                    )
                state = read_state(path, streets, len(patches_of(streets)))
                draw_traffic(
                    streets, state.slowness, f"{found.name}, {_local(found, state.at_ms)}: time beside that of empty streets", out
                )
        except (ValueError, OSError) as error:
            fail(str(error))
        console.print(f"drawn to {out}", soft_wrap=True)

    return traffic


def _learned_city(name: str | None, settings: Settings) -> tuple[City, LearnedCity]:
    city = load_city(name or default_city(settings), settings)
    if not is_learned(city):
        raise ValueError(f"{city.city_id} has no [routing.traffic] section: its traffic is not learned")
    return city, learned_city(city, settings)


def _free_flow(known: LearnedCity, settings: Settings) -> JoinedRouter:
    """The city's streets as if nobody else drove there."""
    router = known.router
    params = replace(router.params, time_factor=1.0, terminal_s=0.0)
    if isinstance(router, RoadRouter):
        return RoadRouter(router.free_flow, load_tables(router.free_flow, settings.cache_dir / "routing"), params)
    return router.with_slowness(np.ones(router.free_flow.n_edges), params)


def _learn(
    city: City, known: LearnedCity, free: JoinedRouter, rides: TimedRides, now_ms: int, progress: Callable[[str], None]
) -> tuple[TrafficState, TimedRides, dict[str, int]]:
    """What is thought as of now after these rides, those that it was learned from, and how many were left out, by reason."""
    params = known.params
    patches = patches_of(free.graph)
    good, unfit = fit_to_learn(free, rides)
    used = rides.rows(good)
    knowledge = learn_rides(free, patches, used, city.time_zone, params.traffic, params.memory, progress)
    hour = int(hours_of(np.array([now_ms]), city.time_zone)[0])
    beliefs = beliefs_in(knowledge, hour, patches, params.traffic)
    return state_of(known.router, patches, knowledge.aged(now_ms, params.memory), beliefs, 1), used, unfit


def _account(state: TrafficState, used: TimedRides, left_out: dict[str, int], version: str) -> Table:
    low, half, high = np.percentile(state.slowness, [10, 50, 90])
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items())) or "none"
    table = Table(title="What was learned", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("rides learned from", f"{len(used):,}")
    table.add_row("rides left out", dropped)
    table.add_row("slowness of streets", f"half below {half:.2f}, eight of ten between {low:.2f} and {high:.2f}")
    table.add_row("setting out and pulling up", f"{state.terminal_s:.0f} s a trip")
    table.add_row("to and from the streets", f"{1 / state.leg_s_per_m:.1f} m/s")
    if version:
        table.add_row("version", version)
    return table


def _local(city: City, at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / MS_PER_S, city.zone_info):%Y-%m-%d %H:%M}"
