"""What do rides with known durations teach of a city's traffic?

Ways, traffic, ways again: the fastest way depends on the traffic.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.knowledge import MemoryParams, beliefs_in, nothing_known, taught
from routing.traffic import Observations

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.units import Floats, Ints
    from routing.joining import JoinedRouter
    from routing.knowledge import Knowledge
    from routing.patches import Patches
    from routing.traffic import TrafficParams

PASSES: Final = 3
"""Times over which ways and traffic are made to agree: more change nothing that can be measured."""

FIRST_TERMINAL_S: Final = 60.0
SHORTEST_S: Final = 60.0
LONGEST_RATIO: Final = 12.0
LEAST_FREE_S: Final = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class TimedRides:
    """Rides and how long they took: one row each. Raises ValueError naming the column.

    origins, destinations : float64[n, 2], lat and lng in degrees
    at_ms : int64[n], when each began, Unix milliseconds
    taken_s : float64[n], how long it took; nan where its end is not known
    """

    origins: Floats
    destinations: Floats
    at_ms: Ints
    taken_s: Floats

    def __post_init__(self) -> None:
        n = len(self.at_ms)
        for name, shape in (("origins", (n, 2)), ("destinations", (n, 2)), ("taken_s", (n,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")

    def __len__(self) -> int:
        """How many?"""
        return len(self.at_ms)

    def rows(self, rows: Ints) -> TimedRides:
        """Some of them: int64[k]."""
        return TimedRides(self.origins[rows], self.destinations[rows], self.at_ms[rows], self.taken_s[rows])


def fit_to_learn(free: JoinedRouter, rides: TimedRides) -> tuple[Ints, dict[str, int]]:
    """Which rides can teach something (int64[k]), and how many cannot, by reason? `free` is the router of free flow."""
    starts, ends = free.snap(rides.origins), free.snap(rides.destinations)
    free_s = free.pair_times_s(rides.origins, rides.destinations, 0).astype(np.float64)
    reasons = (
        ("no_end", ~np.isfinite(rides.taken_s)),
        ("off_network", ~np.isfinite(starts.gap_m + ends.gap_m)),
        ("no_way", ~np.isfinite(free_s)),
        ("no_trip", starts.nodes == ends.nodes),
        ("too_short", ~(rides.taken_s >= SHORTEST_S)),
        ("too_long", rides.taken_s > LONGEST_RATIO * np.maximum(free_s, LEAST_FREE_S)),
    )
    good = np.ones(len(rides), dtype=np.bool_)
    dropped: Counter[str] = Counter()
    for reason, bad in reasons:
        dropped[reason] += int((good & bad).sum())
        good &= ~bad
    return np.flatnonzero(good), {reason: count for reason, count in dropped.items() if count}


def learn_rides(
    free: JoinedRouter,
    patches: Patches,
    rides: TimedRides,
    time_zone: str,
    params: TrafficParams,
    memory: MemoryParams,
    progress: Callable[[str], None] = lambda _: None,
) -> Knowledge:
    """What is known of the traffic after these rides, all of them fit to learn?

    The hour that teaches is the one in which a ride began. The last pass's ways are those of the traffic that is thought of the
    hour with the most rides. Raises ValueError where there are none, and as `build_tables`.
    """
    if not len(rides):
        raise ValueError("there are no rides to learn from")
    starts, ends = free.snap(rides.origins), free.snap(rides.destinations)
    hours = hours_of(rides.at_ms, time_zone)
    busiest = int(np.bincount(hours).argmax())
    first = replace(nothing_known(patches, int(rides.at_ms.max())), terminal_s=FIRST_TERMINAL_S)
    knowledge = first
    for number in range(PASSES):
        progress(f"ways, {number + 1} of {PASSES}")
        slowness = beliefs_in(knowledge, busiest, patches, params).slowness
        present = free.with_slowness(slowness[patches.of_edge])
        way_first, edges = present.ways(starts.nodes, ends.nodes)
        progress(f"traffic, {number + 1} of {PASSES}")
        whole = np.ones(len(rides), dtype=np.bool_)
        seen = Observations(patches.of_ways(way_first, edges), starts.gap_m + ends.gap_m, rides.taken_s, whole)
        knowledge = taught(first, seen, hours, patches, params, memory)
    return knowledge


def hours_of(at_ms: Ints, time_zone: str) -> Ints:
    """In which hour of the city's day is each moment? int64[n]."""
    zone = ZoneInfo(time_zone)
    quarters, row_of = np.unique(at_ms // (900 * MS_PER_S), return_inverse=True)  # no zone is off by less than a quarter
    of_quarter = [datetime.fromtimestamp(quarter * 900, zone).hour for quarter in quarters.tolist()]
    return np.array(of_quarter, dtype=np.int64)[row_of]
