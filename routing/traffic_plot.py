"""How slow is which street? A map of the network, coloured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from routing.graph import RoadGraph

FASTEST: Final = 0.7
SLOWEST: Final = 6.0
_TALLEST_IN: Final = 11.0
_WIDTH_IN: Final = 8.0
_APART: Final = 0.15
"""Two directions of a street are drawn side by side, so far apart, in hundredths of the map's width."""


def draw_traffic(graph: RoadGraph, slowness: npt.NDArray[np.floating], title: str, path: Path) -> None:
    """Draws it as a PNG: float[n_edges], time relative to free flow. Raises OSError."""
    middle = math.radians(float(graph.lat.mean()))
    east, north = graph.lng * math.cos(middle), graph.lat
    tail, head = graph.tail(), graph.head
    along = np.column_stack((east[head] - east[tail], north[head] - north[tail]))
    size = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)[:, None]
    width = float(np.ptp(east)) or 1e-6
    aside = np.column_stack((along[:, 1], -along[:, 0])) / size * width * _APART / 100
    begin = np.column_stack((east[tail], north[tail])) + aside
    end = np.column_stack((east[head], north[head])) + aside
    height_in = min(_TALLEST_IN, max(4.0, _WIDTH_IN * float(np.ptp(north)) / width))
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(slowness, kind="stable")  # the slowest on top
    streets = LineCollection(
        list(np.stack((begin, end), axis=1)[order]), cmap="RdYlGn_r", norm=LogNorm(FASTEST, SLOWEST), linewidths=1.1
    )
    streets.set_array(np.asarray(slowness)[order])
    axes.add_collection(streets)
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title)
    bar = figure.colorbar(streets, ax=axes, shrink=0.5, ticks=[1, 1.5, 2, 3, 4, 6])
    bar.ax.set_yticklabels(["1", "1.5", "2", "3", "4", "6"])
    bar.ax.minorticks_off()
    figure.savefig(path, dpi=110, format="png")
