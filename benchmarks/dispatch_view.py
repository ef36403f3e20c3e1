"""Who was served how, with few drivers and with many: a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from benchmarks.dispatch import BATCHED
from benchmarks.dispatch_figures import means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from benchmarks.dispatch import Supply


def supply_table(supplies: Sequence[Supply]) -> RenderableType:
    """One row for each number of drivers and each way to dispatch them; means over the seeds."""
    table = Table(
        title="from accept to arrival, of rides served; wait: from request to arrival", title_justify="left", box=box.SIMPLE_HEAD
    )
    for name in ("drivers", "dispatch", "pickup, s", "median", "9 of 10", "wait, s", "served", "batched less"):
        table.add_column(name, justify="left" if name == "dispatch" else "right", no_wrap=True)
    for supply in supplies:
        for number, (contender, runs) in enumerate(supply.runs.items()):
            all_seeds = means(runs)
            seconds = [f"{all_seeds[key]:.0f}" for key in ("pickup_s", "pickup_p50_s", "pickup_p90_s", "wait_s")]
            gain = supply.difference_s(contender)
            difference = "" if contender == BATCHED else f"{gain.mean:+.0f} ± {gain.high - gain.mean:.0f}"
            drivers = f"{supply.drivers:,}" if number == 0 else ""
            table.add_row(drivers, contender, *seconds, f"{all_seeds['served']:.1%}", difference)
        table.add_section()
    return table
