"""What was measured, how much did it vary, and how does it compare with what was asked for? Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.units import Floats


class Verdict(StrEnum):
    """How a figure compares with its floor and its goal."""

    GOAL = "goal reached"
    FLOOR = "above the floor"
    BELOW = "below the floor"
    NONE = "-"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and what is asked of it. Source: docs/benchmarks.md.

    floor, goal : the first figure to reach, and where we are going; None where nothing is asked
    at_most : the smaller the better
    either_way : the nearer to 0 the better, from either side; with at_most
    """

    key: str
    what: str
    unit: str = ""
    floor: float | None = None
    goal: float | None = None
    at_most: bool = False
    either_way: bool = False

    def verdict(self, value: float) -> Verdict:
        """How does this value compare?"""
        if self.goal is not None and self._reaches(value, self.goal):
            return Verdict.GOAL
        if self.floor is None:
            return Verdict.NONE
        return Verdict.FLOOR if self._reaches(value, self.floor) else Verdict.BELOW

    def _reaches(self, value: float, mark: float) -> bool:
        if self.either_way:
            value = abs(value)
        return value <= mark if self.at_most else value >= mark


@dataclass(frozen=True, slots=True)
class Figure:
    """A target and what came of it: one value, and the samples of the single repeats."""

    target: Target
    value: float
    samples: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError where it says nothing."""
        if not self.samples or not all(math.isfinite(each) for each in (self.value, *self.samples)):
            raise ValueError(f"{self.target.key}: nothing was measured")

    @property
    def verdict(self) -> Verdict:
        """How the value compares with what is asked."""
        return self.target.verdict(self.value)


def median_of(target: Target, samples: Sequence[float]) -> Figure:
    """The figure whose value is the median of its repeats."""
    return Figure(target, float(np.median(samples)) if samples else math.nan, tuple(samples))


def rate_between(progress: Sequence[tuple[float, int]], from_s: float, to_s: float) -> float:
    """How many a second were dealt with between two times, counted from event to event?

    progress : (time, how many in all were dealt with then), in the order of time; the first is the beginning
    The last events at or before either time count; where those are one and the same, the second is the one after it.
    Returns NaN where there is none.
    """
    start, end = (max(bisect_right(progress, at_s, key=itemgetter(0)) - 1, 0) for at_s in (from_s, to_s))
    end = max(end, start + 1)
    if end >= len(progress):
        return math.nan
    (first_s, first), (last_s, last) = progress[start], progress[end]
    return (last - first) / (last_s - first_s) if last_s > first_s else math.nan


def percentile(values: Floats, share: float) -> float:
    """The value that `share` percent of all do not exceed."""
    return float(np.percentile(values, share)) if len(values) else math.nan


@dataclass(frozen=True, slots=True)
class Report:
    """All that one benchmark has to say.

    checked : what was compared, and how often
    faults : what did not add up; a report with any is worth nothing
    details : more than one figure each, for machines
    """

    benchmark: str
    figures: tuple[Figure, ...]
    parameters: Mapping[str, object]
    machine: Mapping[str, object]
    checked: Mapping[str, int]
    faults: tuple[str, ...]
    details: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For machines: each figure by its key, then how it came about."""
        return {
            "benchmark": self.benchmark,
            **{figure.target.key: figure.value for figure in self.figures},
            "samples": {figure.target.key: list(figure.samples) for figure in self.figures},
            "spread": {figure.target.key: [min(figure.samples), max(figure.samples)] for figure in self.figures},
            "verdicts": {
                figure.target.key: {
                    "floor": figure.target.floor,
                    "goal": figure.target.goal,
                    "verdict": str(figure.verdict),
                }
                for figure in self.figures
                if figure.verdict is not Verdict.NONE
            },
            "checked": dict(self.checked),
            "faults": list(self.faults),
            "parameters": dict(self.parameters),
            "machine": dict(self.machine),
            **self.details,
        }
