"""What has a run measured and checked so far?"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accounting import answer_faults, position_faults, tally_faults
from benchmarks.figures import Figure, Report, median_of
from hexhail.kernel import geo
from hexhail.kernel.units import E7

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.accounting import Found, Tally
    from benchmarks.calls_grpc import LocationCalls
    from benchmarks.figures import Target


@dataclass(slots=True)
class Notebook:
    """Samples by the key of their figure, and what did not add up."""

    samples: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    checked: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, **samples: float) -> None:
        """One repeat has given these."""
        for key, value in samples.items():
            self.samples[key].append(value)

    def check(self, what: str, faults: Sequence[str], count: int = 1) -> None:
        """So many things were looked at, and these were wrong."""
        self.checked[what] += count
        self.faults += faults

    def check_tally(self, what: str, tally: Tally, expected_drops: frozenset[str] = frozenset()) -> None:
        """Is each fix of a load accounted for?"""
        self.check("fixes sent and acknowledged", tally_faults(what, tally, expected_drops), tally.sent)

    async def check_positions(self, what: str, calls: LocationCalls, expected_e7: dict[str, tuple[int, int]]) -> None:
        """Is each driver where its last fix said?"""
        found_e7 = await calls.positions_e7(list(expected_e7))
        self.check("positions read back", position_faults(what, expected_e7, found_e7), len(expected_e7))

    def check_answers(
        self,
        what: str,
        places: Sequence[tuple[float, float]],
        answers: Sequence[Found],
        wanted: int,
        expected_e7: dict[str, tuple[int, int]],
        radius_m: float,
    ) -> None:
        """Are those who were found at each place the nearest of all who are available, while nobody moves?"""
        driver_ids = list(expected_e7)
        lat, lng = (np.array(column) / E7 for column in zip(*expected_e7.values(), strict=True))
        for place, answer in zip(places, answers, strict=True):
            distance_mm = np.rint(geo.distances_m(*place, lat, lng) * 1000).astype(np.int64)
            found = answer.driver_ids
            faults = answer_faults(what, found, wanted, distance_mm, driver_ids, round(radius_m * 1000))
            if not answer.complete:
                faults.append(f"{what}: an answer is not complete")
            self.check("nearby answers against all drivers", faults)

    def report(self, benchmark: str, targets: Sequence[Target], params: Any, **overall: float) -> Report:
        """All that was measured: the medians of the samples, except for those figures whose value is given."""
        figures = []
        for target in targets:
            figure = median_of(target, self.samples[target.key])
            figures.append(Figure(target, overall.get(target.key, figure.value), figure.samples))
        machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": sys.version.split()[0]}
        return Report(benchmark, tuple(figures), asdict(params), machine, dict(self.checked), tuple(self.faults))
