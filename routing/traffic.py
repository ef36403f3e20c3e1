"""How much longer than on empty streets does driving take, here and now? Learned from what was driven. Pure.

Every observation says: from here to there took so long. Its fastest way spends so many seconds of free flow in each patch
(`patches`), so each patch's slowness is estimated by expectation and maximisation: what an observation took is shared among its
patches in proportion to what they are thought to cost, and each patch's new slowness is all it was given over all the free flow
driven in it. A few rounds of it make rides that cross many patches tell what single ones cost; for a stretch within one patch,
the first round is the answer. Logarithms are averaged, so half of all observations take longer than thought, and half do not.

No patch is judged by itself. What was thought before is first lifted or lowered by the level of the whole city; each patch is
then drawn toward that (`trust_s`) and toward its neighbours (`coupling_s`), and no estimate leaves `min_slowness` to
`max_slowness`. Observations that are far off what is thought count less (a driver who stopped for a coffee), and none can say
more than `most_surprise` times as much or as little.

Source: the sharing is the multiplicative algebraic reconstruction of tomography (Gordon, Bender, Herman 1970) with the prior of
a Gaussian field; its use for travel times, weights and figures are our choice (docs/decisions/0018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import diags_array
from scipy.sparse.linalg import spsolve

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.patches import Patches, Sparse

LONG_S: Final = 300.0
"""An observation of this length counts half as much a second as a very short one: what varies does so over the whole of it."""

USUAL_SURPRISE: Final = 0.15
"""By how much observations are off as a rule, as a logarithm: those that are off by more count less."""

LEAST_SHARE: Final = 0.1
LEAST_LEG_S_PER_M: Final = 1e-3


@dataclass(frozen=True, slots=True)
class TrafficParams:
    """How traffic is learned. Source: our choice, by cross-validation on real rides (docs/decisions/0018).

    usual_slowness : what is thought where nothing was observed: driving takes so many times its free flow
    min_slowness, max_slowness : no patch is thought to be faster or slower
    level_trust_s : so many weighed seconds of driving anywhere weigh as much as what was thought of the whole city
    trust_s : so many in a patch weigh as much as what was thought of it before
    coupling_s : so many, as much as one neighbour
    most_surprise : no observation says more than this factor, either way
    rounds : of sharing, for a file of rides
    """

    usual_slowness: float = 2.2
    min_slowness: float = 0.7
    max_slowness: float = 8.0
    level_trust_s: float = 300.0
    trust_s: float = 10.0
    coupling_s: float = 10.0
    most_surprise: float = 2.0
    rounds: int = 20

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        for name in ("usual_slowness", "min_slowness", "max_slowness", "level_trust_s", "trust_s", "coupling_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")
        if not self.min_slowness <= self.usual_slowness <= self.max_slowness:
            raise ValueError("usual_slowness is not between min_slowness and max_slowness")
        if not (math.isfinite(self.most_surprise) and self.most_surprise > 1):
            raise ValueError(f"most_surprise is {self.most_surprise}, not above 1")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, below 1")


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What was driven: one row each.

    driving : float64 csr[n, n_patches], seconds of free flow in each patch, by the fastest way
    legs_m : float64[n], straight lines between the ends and the network
    taken_s : float64[n], above 0, how long it took
    whole : bool[n], a whole trip, with setting out and pulling up; else a stretch of one

    Raises ValueError naming the column.
    """

    driving: Sparse
    legs_m: Floats
    taken_s: Floats
    whole: Bools

    def __post_init__(self) -> None:
        n = self.driving.shape[0]
        for name in ("legs_m", "taken_s", "whole"):
            column = getattr(self, name)
            if column.shape != (n,):
                raise ValueError(f"{name} has shape {column.shape}, not [{n}]")
        if not (np.isfinite(self.taken_s).all() and (self.taken_s > 0).all()):
            raise ValueError("taken_s holds values that are not finite and above 0")
        if not (np.isfinite(self.legs_m).all() and (self.legs_m >= 0).all()):
            raise ValueError("legs_m holds values that are not finite, or below 0")

    def __len__(self) -> int:
        """How many?"""
        return len(self.taken_s)

    def rows(self, rows: Ints) -> Observations:
        """Some of them: int64[k]."""
        return Observations(self.driving[rows], self.legs_m[rows], self.taken_s[rows], self.whole[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What all observations say of each patch, added up; sums of different observations add up in turn.

    free_s : float64[n_patches], seconds of free flow driven
    took_s : float64[n_patches], seconds that were its share
    """

    free_s: Floats
    took_s: Floats

    @classmethod
    def none(cls, patches: int) -> Evidence:
        """Nothing was observed."""
        return cls(np.zeros(patches), np.zeros(patches))

    def faded(self, share: float) -> Evidence:
        """The same, worth less: as it is after a time in which new evidence counts more."""
        return Evidence(self.free_s * share, self.took_s * share)

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.free_s + other.free_s, self.took_s + other.took_s)


@dataclass(frozen=True, slots=True, eq=False)
class Beliefs:
    """What is thought of the traffic.

    slowness : float64[n_patches], time relative to free flow
    terminal_s : what every trip takes besides, for setting out and pulling up
    leg_s_per_m : on the straight lines between its ends and the network
    """

    slowness: Floats
    terminal_s: float = 0.0
    leg_s_per_m: float = 0.2

    def predicted_s(self, seen: Observations) -> Floats:
        """How long would these have taken? float64[n]."""
        return (
            np.asarray(seen.driving @ self.slowness) + seen.legs_m * self.leg_s_per_m + np.where(seen.whole, self.terminal_s, 0.0)
        )


def at_first(patches: Patches, params: TrafficParams) -> Beliefs:
    """What is thought where nothing was ever observed."""
    return Beliefs(np.full(len(patches), params.usual_slowness))


def evidence_of(seen: Observations, beliefs: Beliefs, params: TrafficParams) -> Evidence:
    """What do these observations say of each patch, in the light of what is thought?"""
    weight, surprise = _weighed(seen, beliefs, params)
    by_patch = seen.driving.T
    return Evidence(np.asarray(by_patch @ weight), np.asarray(by_patch @ (weight * surprise)) * beliefs.slowness)


def estimated(evidence: Evidence, before: Floats, patches: Patches, params: TrafficParams) -> Floats:
    """What is to be thought of each patch, given the evidence and what was thought before? float64[n_patches].

    Of all fields the one that fits evidence, trust and neighbours best, each by its weight in seconds; with no evidence at all,
    what was thought before.
    """
    thought_s = evidence.free_s * before
    level = (evidence.took_s.sum() + params.level_trust_s) / (thought_s.sum() + params.level_trust_s)
    weighed = diags_array(thought_s * level + params.trust_s) + params.coupling_s * patches.coupling
    relative = np.asarray(spsolve(weighed.tocsc(), evidence.took_s + params.trust_s))
    return np.asarray(np.clip(before * level * relative, params.min_slowness, params.max_slowness))


def learned(seen: Observations, known: Evidence, before: Beliefs, patches: Patches, params: TrafficParams) -> Beliefs:
    """What is to be thought after these observations, beside evidence known already? Settles in `params.rounds` rounds."""
    if not len(seen):
        return before
    beliefs = replace(before, slowness=estimated(known, before.slowness, patches, params))
    for _ in range(params.rounds):
        evidence = known + evidence_of(seen, beliefs, params)
        beliefs = replace(_legs_learned(seen, beliefs, params), slowness=estimated(evidence, before.slowness, patches, params))
    return beliefs


def _weighed(seen: Observations, beliefs: Beliefs, params: TrafficParams) -> tuple[Floats, Floats]:
    """How much does each observation count, and how many times as long as thought did it take (1 + the logarithm of that)?"""
    predicted_s = np.maximum(beliefs.predicted_s(seen), 1.0)
    surprise = np.log(seen.taken_s / predicted_s)
    weight = np.sqrt(USUAL_SURPRISE / np.maximum(np.abs(surprise), USUAL_SURPRISE)) * LONG_S / (LONG_S + predicted_s)
    most = math.log(params.most_surprise)
    return weight, np.maximum(1.0 + np.clip(surprise, -most, most), LEAST_SHARE)


def _legs_learned(seen: Observations, beliefs: Beliefs, params: TrafficParams) -> Beliefs:
    """What trips take besides driving is learned from whole trips, in the same way; from none of them, nothing is."""
    weight, surprise = _weighed(seen, beliefs, params)
    trips, legs = weight * seen.whole, weight * seen.whole * seen.legs_m
    if not trips.sum() or not legs.sum():
        return beliefs
    return replace(
        beliefs,
        terminal_s=beliefs.terminal_s * float(trips @ surprise / trips.sum()),
        leg_s_per_m=max(beliefs.leg_s_per_m * float(legs @ surprise / legs.sum()), LEAST_LEG_S_PER_M),
    )
