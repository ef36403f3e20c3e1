"""Do travel times say what rides take? A picture: for rides of one predicted time, the times that they took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.eta import Predictions
    from hexhail.kernel.units import Floats

_GROUPS: Final = 12
_S_PER_MINUTE: Final = 60.0


def draw_calibration(predictions: Predictions, path: Path) -> None:
    """Draws it as a PNG. Raises OSError."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, said_s, title in zip(
        axes,
        (predictions.predicted_s, predictions.constant_s),
        ("learned traffic", "free flow times one factor"),
        strict=True,
    ):
        middle, low, half, high = _groups(said_s / _S_PER_MINUTE, predictions.taken_s / _S_PER_MINUTE)
        most = float(max(high.max(), middle.max())) * 1.05
        ax.plot([0, most], [0, most], color="0.6", linewidth=1, label="as predicted")
        ax.fill_between(middle, low, high, alpha=0.25, label="eight of ten rides")
        ax.plot(middle, half, marker="o", label="median ride")
        off = np.abs(said_s / predictions.taken_s - 1)
        ax.set_title(f"{title}: median error {100 * np.median(off):.1f} %")
        ax.set_xlabel("predicted, minutes")
        ax.set_xlim(0, most)
        ax.set_ylim(0, most)
    axes[0].set_ylabel("taken, minutes")
    axes[0].legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=110, format="png")


def _groups(said: Floats, taken: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Rides in groups of equal size by what was said: the middle of each, and 10, 50 and 90 of 100 of what they took."""
    order = np.argsort(said, kind="stable")
    groups = [group for group in np.array_split(order, _GROUPS) if len(group)]
    middle = np.array([np.median(said[group]) for group in groups])
    low, half, high = (np.array([np.percentile(taken[group], share) for group in groups]) for share in (10, 50, 90))
    return middle, low, half, high
