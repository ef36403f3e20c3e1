"""How long is the way to the rider, and how many are served, with few drivers and with many? A picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.dispatch import BATCHED
from benchmarks.dispatch_figures import interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.dispatch import Supply


def draw_supplies(supplies: Sequence[Supply], path: Path) -> None:
    """Draws it as a PNG. Raises OSError."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    drivers = [supply.drivers for supply in supplies]
    for ax, key, scale, title in (
        (axes[0], "pickup_s", 1.0, "mean pickup time of rides served, seconds"),
        (axes[1], "served", 100.0, "requests served, %"),
    ):
        for name in supplies[0].runs:
            spans = [interval([scale * run[key] for run in supply.runs[name]]) for supply in supplies]
            reach = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
            label = name if name == BATCHED else f"phased, {name}"
            ax.errorbar(drivers, [span.mean for span in spans], yerr=reach, marker="o", capsize=3, label=label)
        ax.set_title(title)
        ax.set_xlabel("drivers")
        ax.set_ylim(0, None)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110, format="png")
