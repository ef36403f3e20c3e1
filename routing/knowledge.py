"""What does a city know of its traffic: lately, and at each hour of its day? Pure.

Evidence is kept twice. That of the hour of the day gives way to newer evidence only, and says what is usual then; that of late
fades within minutes, and says what is unusual now. A patch is thought to be as slow as lately, as far as it was driven lately;
else as usual in this hour, as far as that is known; else as usual at all, and each step borrows from the neighbours and from the
level of the city.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.traffic import Beliefs, Evidence, TrafficParams, at_first, estimated, evidence_of, learned

if TYPE_CHECKING:
    from hexhail.kernel.units import Ints
    from routing.patches import Patches
    from routing.traffic import Observations

HOURS: Final = 24

ROUNDS_AT_ONCE: Final = 5
"""Rounds of sharing for the observations of the last minutes: enough for what they say to be heard in full."""


@dataclass(frozen=True, slots=True)
class MemoryParams:
    """How long evidence counts. Source: our choice.

    lately_half_life_s : after so long, what was seen counts half in what is thought of now
    usual_most_s : of each patch and hour of the day, so many weighed seconds of driving are remembered: older ones give way
    """

    lately_half_life_s: float = 600.0
    usual_most_s: float = 3_600.0

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        for name in ("lately_half_life_s", "usual_most_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """All that was learned, as of a moment.

    hours : the evidence of each hour of the city's day, float64[HOURS, n_patches] each
    lately : that of late, float64[n_patches] each
    terminal_s, leg_s_per_m : what trips take besides driving (Beliefs)
    at_ms : up to when it was learned
    """

    hours: Evidence
    lately: Evidence
    terminal_s: float
    leg_s_per_m: float
    at_ms: int

    def of_hour(self, hour: int) -> Evidence:
        """What is known of one hour of the day."""
        return Evidence(self.hours.free_s[hour], self.hours.took_s[hour])

    def aged(self, at_ms: int, memory: MemoryParams) -> Knowledge:
        """The same, as it counts at another moment, later as a rule."""
        passed_ms = abs(at_ms - self.at_ms)
        return replace(self, lately=self.lately.faded(0.5 ** (passed_ms / (memory.lately_half_life_s * MS_PER_S))), at_ms=at_ms)

    @property
    def is_none(self) -> bool:
        """Was nothing ever observed?"""
        return not (self.hours.free_s.any() or self.lately.free_s.any())


def nothing_known(patches: Patches, at_ms: int, *, terminal_s: float = 0.0, leg_s_per_m: float = 0.2) -> Knowledge:
    """What a city knows at first."""
    n = len(patches)
    hours = Evidence(np.zeros((HOURS, n)), np.zeros((HOURS, n)))
    return Knowledge(hours, Evidence.none(n), terminal_s, leg_s_per_m, at_ms)


def beliefs_in(knowledge: Knowledge, hour: int, patches: Patches, params: TrafficParams) -> Beliefs:
    """What is to be thought of the traffic now, in this hour of the city's day?"""
    usual = _usual_in(knowledge, hour, patches, params)
    return replace(usual, slowness=estimated(knowledge.lately, usual.slowness, patches, params))


def observed(
    knowledge: Knowledge, seen: Observations, hour: int, at_ms: int, patches: Patches, params: TrafficParams, memory: MemoryParams
) -> Knowledge:
    """What is known after these observations of the last minutes?"""
    aged = knowledge.aged(at_ms, memory)
    usual = _usual_in(aged, hour, patches, params)
    news = Evidence.none(len(patches))
    for _ in range(ROUNDS_AT_ONCE):
        lately = estimated(aged.lately + news, usual.slowness, patches, params)
        news = evidence_of(seen, replace(usual, slowness=lately), params)
    return replace(aged, hours=_with(aged.hours, hour, news, memory), lately=aged.lately + news)


def taught(
    knowledge: Knowledge, seen: Observations, hours: Ints, patches: Patches, params: TrafficParams, memory: MemoryParams
) -> Knowledge:
    """What is known after these observations of earlier days, each of an hour of the day (int64[n])?

    They say what is usual, and nothing of now. What trips take besides driving is learned from all of them.
    """
    known = knowledge
    for hour in np.unique(hours).tolist():
        some = seen.rows(np.flatnonzero(hours == hour))
        before = _general(knowledge, patches, params)
        beliefs = learned(some, knowledge.of_hour(hour), before, patches, params)
        news = evidence_of(some, beliefs, params)
        share = len(some) / len(seen)
        known = replace(
            known,
            hours=_with(known.hours, hour, news, memory),
            terminal_s=known.terminal_s + share * (beliefs.terminal_s - knowledge.terminal_s),
            leg_s_per_m=known.leg_s_per_m + share * (beliefs.leg_s_per_m - knowledge.leg_s_per_m),
        )
    return known


def _usual_in(knowledge: Knowledge, hour: int, patches: Patches, params: TrafficParams) -> Beliefs:
    general = _general(knowledge, patches, params)
    return replace(general, slowness=estimated(knowledge.of_hour(hour), general.slowness, patches, params))


def _general(knowledge: Knowledge, patches: Patches, params: TrafficParams) -> Beliefs:
    first = at_first(patches, params)
    of_all = Evidence(knowledge.hours.free_s.sum(axis=0), knowledge.hours.took_s.sum(axis=0))
    return Beliefs(estimated(of_all, first.slowness, patches, params), knowledge.terminal_s, knowledge.leg_s_per_m)


def _with(hours: Evidence, hour: int, news: Evidence, memory: MemoryParams) -> Evidence:
    free_s, took_s = hours.free_s.copy(), hours.took_s.copy()
    free_s[hour] += news.free_s
    took_s[hour] += news.took_s
    kept = np.minimum(1.0, memory.usual_most_s / np.maximum(free_s[hour], memory.usual_most_s))
    free_s[hour] *= kept
    took_s[hour] *= kept
    return Evidence(free_s, took_s)
