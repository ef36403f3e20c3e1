"""`hexhail city`: one's own city, from a map that anybody can have."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from routing.car_tags import CLASS_SPEED_KMH, MAX_SPEED_KMH
from routing.graph_file import SUFFIX, write_graph_file
from routing.loaders import RoadFormat, format_of, load_road_graph
from routing.osm import OsmParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from routing.road_files import GraphReport

MUCH_DROPPED = 0.05
"""If more of the streets hang together with nothing else, something is wrong with the map, or its clipping."""

_CLASSES = ", ".join(f"{name} {speed:g}" for name, speed in CLASS_SPEED_KMH.items())
_Speeds = Annotated[
    list[str] | None,
    typer.Option(
        "--speed",
        metavar="CLASS=KMH",
        help="How fast one drives on streets of a class that name no limit, such as residential=25; may be repeated. "
        f"By default: {_CLASSES}.",
    ),
]


def city_commands(fail: Callable[[str], NoReturn]) -> typer.Typer:
    """What can be done with cities' maps. `fail` prints one line and ends the command."""
    city = typer.Typer(help="Cities of your own: their road networks.", no_args_is_help=True)

    @city.callback()
    def group() -> None:
        """Cities of your own: their road networks."""

    @city.command("import")
    def import_command(
        file: Annotated[Path, typer.Argument(help="The map: .osm.pbf, .osm (also .gz, .bz2), .graphml or .json.")],
        out: Annotated[
            Path | None, typer.Option("--out", dir_okay=False, help=f"Where to write; by default CITY{SUFFIX}, here.")
        ] = None,
        speed: _Speeds = None,
        longest_edge_m: Annotated[
            float, typer.Option(min=1.0, help="Streets longer than this without a junction get points in between.")
        ] = OsmParams().longest_edge_m,
    ) -> None:
        """Makes one compact road file of a map; services load it in a fraction of a second.

        OpenStreetMap data come from any of its mirrors, cut to the city with `osmium extract`; OSMnx saves GraphML with
        `ox.save_graphml`, networkx JSON with `node_link_data`. Only streets that taxis may use are kept, in the directions in
        which they may, at their limits or else the speed of their class, and of these the largest part in which every place
        reaches every other. A table tells what was kept, what was not, and why.

        Then put the file below HEXHAIL_DATA and name it in the city's TOML, in the table routing: kind = "road",
        file = "CITY.hexroads".

        [bold]hexhail city import bremen.osm.pbf --speed residential=25 --speed service=10[/]
        """
        console = Console()
        target = out or Path(_city_name(file) + SUFFIX)
        if target.exists() and file.exists() and target.samefile(file):
            fail(f"--out {target} is the map itself")
        try:
            params = OsmParams(_speeds(speed or []), longest_edge_m)
            kind = format_of(file)
            with _busy(console, f"reading {file.name} ({kind.value})"):
                graph, report = load_road_graph(file, params)
            with _busy(console, f"writing {target.name}"):
                write_graph_file(target, graph, report)
        except (ValueError, OSError) as error:
            fail(str(error))
        console.print(_table(file.name, kind, report))
        dropped = report.dropped_m / (report.length_m + report.dropped_m) if report.length_m else 0.0
        if dropped > MUCH_DROPPED:
            console.print(
                f"[bold yellow]{dropped:.0%} of the streets hang together with nothing else: was the map cut rightly?[/]"
            )
        size_mb = target.stat().st_size / 1e6
        console.print(f"written to {target} ({size_mb:,.1f} MB)", soft_wrap=True, highlight=False)

    return city


def _speeds(wishes: list[str]) -> dict[str, float]:
    speeds: dict[str, float] = {}
    for wish in wishes:
        name, _, value = wish.partition("=")
        try:
            speeds[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"--speed {wish!r} is not such as residential=25") from None
    return speeds


def _city_name(file: Path) -> str:
    name = file.name.lower()
    for suffix in (".gz", ".bz2", ".pbf", ".osm", ".graphml", ".json", SUFFIX):
        name = name.removesuffix(suffix)
    return name or "city"


@contextmanager
def _busy(console: Console, what: str) -> Iterator[None]:
    """A line that moves for as long as it takes; nothing where nobody looks."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


def _table(name: str, kind: RoadFormat, report: GraphReport) -> Table:
    table = Table(title=f"{name}: {kind.value}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    km = report.length_m / 1000
    table.add_row("kept", f"{report.nodes:,}", "junctions, each of which reaches every other")
    table.add_row("", f"{report.edges:,}", f"streets between them, each direction for itself, {km:,.1f} km together")
    rows = (
        ("joined", report.points_joined, "points without a choice, now part of a street between junctions"),
        ("added", report.points_added, "points on loops, beside shorter twins, and on very long streets"),
        ("slowed", report.slowed, f"streets that claim more than {MAX_SPEED_KMH:g} km/h"),
        ("dropped", report.ways_closed, "roads that taxis may not use, of classes that cars use"),
        ("dropped", report.nodes_dropped, "points that the largest part does not reach, or that do not reach it"),
        ("", report.edges_dropped, f"streets to or among them, {report.dropped_m / 1000:,.1f} km together"),
        ("dropped", report.parallel_dropped, "streets beside a faster one between the same two points"),
        ("dropped", report.loops_dropped, "streets from a point to itself"),
        ("cut", report.barriers, "places where bollards and the like stand"),
        ("cut", report.points_missing, "points that streets name and the file lacks: beyond its border, as a rule"),
    )
    for what, count, why in rows:
        if count:
            table.add_row(what, f"{count:,}", why)
    return table
