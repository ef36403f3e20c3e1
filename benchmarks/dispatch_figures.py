"""How well were an hour's riders and drivers served, and which of two dispatchers served them better? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import stdtrit

from benchmarks.dispatch_replay import NEVER
from benchmarks.figures import percentile
from hexhail.kernel.units import MS_PER_S
from matching.model import FINAL, RideState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.dispatch_replay import Outcome
    from hexhail.kernel.units import Floats

CONFIDENCE: Final = 0.95
_M_PER_KM: Final = 1000.0


def measured(outcome: Outcome, hour_ms: int) -> dict[str, float]:
    """What does one run come to?

    pickup_s, pickup_p50_s, pickup_p90_s : from accept to arrival, of the rides served
    wait_s : from request to arrival, mean of the rides served
    served, expired : shares of all requests
    offers : drivers asked for each request, in the mean
    deadhead_km : by road to the pickup, mean of the rides served
    utilisation : share of the drivers' time, within the first `hour_ms`, with a rider or on the way to one
    """
    served = outcome.served
    pickup_s = (outcome.arrived_ms - outcome.accepted_ms)[served] / MS_PER_S
    wait_s = (outcome.arrived_ms - outcome.requested_ms)[served] / MS_PER_S
    begins, ends = (np.minimum(column[served], hour_ms) for column in (outcome.accepted_ms, outcome.completed_ms))
    return {
        "pickup_s": _mean(pickup_s),
        "pickup_p50_s": percentile(pickup_s, 50),
        "pickup_p90_s": percentile(pickup_s, 90),
        "wait_s": _mean(wait_s),
        "served": float(served.mean()),
        "expired": sum(state is RideState.EXPIRED for state in outcome.states) / len(outcome.states),
        "offers": float(outcome.offers.mean()),
        "deadhead_km": _mean(outcome.deadhead_m[served]) / _M_PER_KM,
        "utilisation": float((ends - begins).sum()) / (outcome.drivers * hour_ms),
    }


def pickup_of_both_s(one: Outcome, other: Outcome) -> tuple[float, float]:
    """Mean pickup times of those rides alone that both have served: who leaves out what is far looks good elsewhere."""
    both = one.served & other.served
    first, second = (_mean((each.arrived_ms - each.accepted_ms)[both] / MS_PER_S) for each in (one, other))
    return first, second


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between which values it is to be expected, if others were drawn as these were."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Of a few values that were drawn alike, at 95 %; of one alone nothing but itself is known.

    Source: Student's t.
    """
    each = np.asarray(values, dtype=np.float64)
    mean = float(each.mean())
    if len(each) < 2:
        return Interval(mean, mean, mean)
    reach = float(stdtrit(len(each) - 1, (1 + CONFIDENCE) / 2) * each.std(ddof=1) / np.sqrt(len(each)))
    return Interval(mean, mean - reach, mean + reach)


def means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure, over the seeds."""
    return {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}


def dispatch_faults(what: str, outcome: Outcome) -> list[str]:
    """Is every request over, served by one driver or by none, and has no driver two rides at once?"""
    faults = []
    served, states = outcome.served, np.array([str(state) for state in outcome.states])
    if len(states) != len(outcome.requested_ms):
        faults.append(f"{what}: {len(outcome.requested_ms):,} requests, {len(states):,} rides")
        return faults
    still = sum(state not in FINAL for state in outcome.states)
    if still:
        faults.append(f"{what}: {still:,} rides are not over")
    if ((states == RideState.COMPLETED) != served).any() or (served != (outcome.driver != NEVER)).any():
        faults.append(f"{what}: a ride is completed without a driver, or has a driver and is not")
    rows = np.flatnonzero(outcome.driver != NEVER)
    rows = rows[np.lexsort((outcome.accepted_ms[rows], outcome.driver[rows]))]
    before, next_ = rows[:-1], rows[1:]
    twice = (outcome.driver[before] == outcome.driver[next_]) & (outcome.completed_ms[before] > outcome.accepted_ms[next_])
    if twice.any():
        faults.append(f"{what}: {int(twice.sum()):,} times a driver took a ride while on another")
    times = (outcome.requested_ms, outcome.accepted_ms, outcome.arrived_ms, outcome.completed_ms)
    if any((early[served] > late[served]).any() for early, late in pairwise(times)):
        faults.append(f"{what}: a ride's times are out of order")
    return faults


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
