"""Who of the drivers near a place is there soonest, and is it certain? Pure.

Nobody is faster than the router's top speed: a driver farther away than the time of the k-th soonest at that speed comes later,
whatever the roads are like there. So the k nearest by distance say how far one must look, and a second look, as far as that, is
the answer as a rule; one may find somebody sooner, never that one has to look farther.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from location.model import IndexedDrivers, taken

if TYPE_CHECKING:
    import numpy.typing as npt

    from hexhail.kernel.units import Ints
    from location.model import NearbyAnswer, NearbyQuestion

NEVER_MS: Final = np.iinfo(np.int64).max
"""Of a driver from whom no way leads to the place."""

FIRST_LOOK: Final = 2
"""So many times as many as are wanted are looked at first: then the k-th soonest of them is nearly the one of all."""


@dataclass(frozen=True, slots=True, eq=False)
class TimedAnswer:
    """The drivers that are at a place soonest, soonest first, ties by distance, then by id.

    nearby : these drivers; its `searched_radius_m` says that everybody nearer was considered
    time_ms : int64[n], to the place; NEVER_MS, and last, where no way leads there
    travel_times_version, fell_back : whose times they are
    cut_short : more drivers would have had to be looked at than one question may cost: somebody sooner may be among them
    """

    nearby: NearbyAnswer
    time_ms: Ints
    travel_times_version: str
    fell_back: bool
    cut_short: bool


def whole_ms(time_s: npt.NDArray[np.floating]) -> Ints:
    """Seconds as whole milliseconds, so that they compare exactly: float[n], inf where no way leads there -> int64[n]."""
    reached = np.isfinite(time_s)
    whole = np.full(len(time_s), NEVER_MS)
    whole[reached] = np.rint(time_s[reached].astype(np.float64) * 1000)
    return whole


def first_look(question: NearbyQuestion, most: int) -> NearbyQuestion:
    """Whom to look at first: some of the nearest by distance, `most` at most."""
    return replace(question, max_drivers=min(most, FIRST_LOOK * question.max_drivers))


def next_look(
    question: NearbyQuestion, found: NearbyAnswer, time_ms: Ints, top_speed_mps: float, most: int
) -> NearbyQuestion | None:
    """Whom to look at next? None where those found settle the answer, or are as many as may be looked at.

    time_ms : int64[n] of those found
    """
    reach_m = needed_m(question, time_ms, top_speed_mps)
    if reach_m <= found.searched_radius_m or len(time_ms) >= most:
        return None
    return replace(question, max_drivers=most, radius_m=reach_m)


def needed_m(question: NearbyQuestion, time_ms: Ints, top_speed_mps: float) -> float:
    """How far away can somebody be who is sooner than the last of those wanted, or as soon? At most the question's radius.

    top_speed_mps : 0 where no way leads to the place, so that everybody comes as late
    """
    if top_speed_mps == 0:
        return 0.0
    if len(time_ms) < question.max_drivers:
        return question.radius_m
    last_ms = int(np.partition(time_ms, question.max_drivers - 1)[question.max_drivers - 1])
    if last_ms == NEVER_MS:
        return question.radius_m
    return min(question.radius_m, math.ceil((last_ms + 1) * top_speed_mps) / 1000)


def soonest(
    question: NearbyQuestion, found: NearbyAnswer, time_ms: Ints, top_speed_mps: float, version: str, *, fell_back: bool
) -> TimedAnswer:
    """The answer that those found give."""
    order = np.lexsort((np.arange(len(time_ms)), time_ms))[: question.max_drivers]  # they came by distance, ties by id
    ids = found.drivers.driver_ids
    cut_short = needed_m(question, time_ms, top_speed_mps) > found.searched_radius_m
    nearby = replace(
        found,
        drivers=IndexedDrivers([ids[row] for row in order.tolist()], taken(found.drivers.records, order)),
        distance_mm=found.distance_mm[order],
        complete=found.complete and not cut_short,
        next=None,
    )
    return TimedAnswer(nearby, time_ms[order], version, fell_back, cut_short)
