"""Is what was sent what was counted, and what is found? Pure; each check says what is wrong, or nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.units import Floats, Ints

GEOHASH_M: Final = 0.6
"""GEO sets round each place by up to 0.3 m, so distances that differ by less than this may change their order. (Redis's Earth is
larger than ours, but that scales all distances alike.)"""


@dataclass(slots=True)
class Tally:
    """Fixes of a load: sent, and acknowledged as accepted or dropped.

    up_to : what the last acknowledgement said is dealt with, beside how many messages were sent
    """

    sent: int = 0
    accepted: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    up_to: int = 0

    @property
    def dealt_with(self) -> int:
        """Fixes of which it was said what became of them."""
        return self.accepted + self.drops.total()

    def add(self, other: Tally) -> None:
        """Counts another load in."""
        self.sent += other.sent
        self.accepted += other.accepted
        self.drops.update(other.drops)
        self.messages += other.messages
        self.up_to += other.up_to


def tally_faults(what: str, tally: Tally, expected_drops: frozenset[str] = frozenset()) -> list[str]:
    """Is each fix that was sent acknowledged once, and dropped for no reason but those that the load gives?"""
    faults = []
    if tally.dealt_with != tally.sent:
        faults.append(f"{what}: {tally.sent:,} fixes sent, but {tally.accepted:,} accepted and {tally.drops.total():,} dropped")
    if tally.up_to != tally.messages:
        faults.append(f"{what}: {tally.messages:,} messages sent, but acknowledged up to {tally.up_to:,}")
    odd = {reason: count for reason, count in tally.drops.items() if reason not in expected_drops and count}
    if odd:
        faults.append(f"{what}: fixes dropped for {', '.join(f'{reason} ({count:,})' for reason, count in sorted(odd.items()))}")
    if not tally.sent:
        faults.append(f"{what}: nothing was sent")
    return faults


def position_faults(what: str, expected_e7: Mapping[str, tuple[int, int]], found_e7: Mapping[str, tuple[int, int]]) -> list[str]:
    """Is each driver where its last fix said? (lat, lng) by driver id, in 1e-7 degrees."""
    missing = [driver_id for driver_id in expected_e7 if driver_id not in found_e7]
    elsewhere = [driver_id for driver_id, place in expected_e7.items() if driver_id in found_e7 and found_e7[driver_id] != place]
    faults = []
    if missing:
        faults.append(f"{what}: {len(missing):,} of {len(expected_e7):,} drivers have no position, {missing[0]} for one")
    if elsewhere:
        faults.append(
            f"{what}: {len(elsewhere):,} of {len(expected_e7):,} drivers are not where they last said, {elsewhere[0]} for one"
        )
    return faults


def nearest(distance_mm: Ints, driver_ids: Sequence[str], count: int) -> list[str]:
    """Who is nearest, ties by id? distance_mm : int64[n], of each driver."""
    if len(distance_mm) > count:
        rows = np.flatnonzero(distance_mm <= np.partition(distance_mm, count - 1)[count - 1])
    else:
        rows = np.arange(len(distance_mm))
    return [driver_ids[row] for row in sorted(rows.tolist(), key=lambda row: (int(distance_mm[row]), driver_ids[row]))[:count]]


def answer_faults(
    what: str, found: Sequence[str], wanted: int, distance_mm: Ints, driver_ids: Sequence[str], radius_mm: int
) -> list[str]:
    """Are those who were found the nearest of all within the radius, in their order?

    distance_mm : int64[n], of every driver that could be found
    """
    rows = np.flatnonzero(distance_mm <= radius_mm)
    expected = nearest(distance_mm[rows], [driver_ids[row] for row in rows.tolist()], wanted)
    if list(found) == expected:
        return []
    wrong = [f"{ours} for {theirs}" for ours, theirs in zip(found, expected, strict=False) if ours != theirs]
    return [f"{what}: found {len(found)} of the nearest {len(expected)}; {'; '.join(wrong[:3]) or 'too few or too many'}"]


def baseline_faults(what: str, ours: Sequence[str], theirs: Sequence[str], distance_m: Mapping[str, float]) -> list[str]:
    """Have both found the same drivers? Where not, those who differ must be at the edge, across which the rounding moves them.

    distance_m : of every driver that either has found
    """
    if len(set(ours)) != len(ours) or len(set(theirs)) != len(theirs):
        return [f"{what}: a driver was found twice"]
    if len(ours) != len(theirs):
        return [f"{what}: {len(ours)} drivers found, {len(theirs)} by the baseline"]
    edge_m = max((distance_m[driver_id] for driver_id in ours), default=0.0)
    odd = [each for each in set(ours) ^ set(theirs) if abs(distance_m[each] - edge_m) > GEOHASH_M]
    return [f"{what}: the baseline found others, {odd[0]} for one"] if odd else []


@dataclass(frozen=True, slots=True)
class Found:
    """One answer to a nearby question, while drivers move.

    distance_m, age_ms : one figure for each driver found, nearest first
    """

    driver_ids: tuple[str, ...]
    distance_m: tuple[float, ...]
    age_ms: tuple[int, ...]
    complete: bool


def moving_faults(what: str, found: Found, wanted: int, limit_ms: int, home_m: Floats, wander_m: float) -> list[str]:
    """Can this be the answer, wherever drivers are just now within `wander_m` of their homes?

    home_m : float64[n], how far every driver's home is from the place, in any order. The i-th nearest driver can be no farther
        from the i-th nearest home's distance than drivers can be from their homes.
    """
    faults = []
    if not found.complete:
        faults.append(f"{what}: not complete")
    if len(found.driver_ids) != wanted:
        faults.append(f"{what}: {len(found.driver_ids)} drivers found instead of {wanted}")
    if len(set(found.driver_ids)) != len(found.driver_ids):
        faults.append(f"{what}: a driver was found twice")
    if any(age_ms >= limit_ms for age_ms in found.age_ms):
        faults.append(f"{what}: a driver silent for {max(found.age_ms):,} ms was found")
    if list(found.distance_m) != sorted(found.distance_m):
        faults.append(f"{what}: not the nearest first")
    count = len(found.distance_m)
    if count:
        homes_m = np.sort(np.partition(home_m, count - 1)[:count])
        off_m = float(np.abs(np.array(found.distance_m) - homes_m).max())
        if off_m > wander_m:
            faults.append(f"{what}: the nearest are {off_m:.0f} m from where they can be")
    return faults


def eta_faults(predicted_s: Floats, taken_s: Floats, began_ms: Ints, last_lesson_ms: int | None) -> list[str]:
    """What is wrong with travel times that were asked for? Each is a time, of a ride that began after all that taught.

    predicted_s, taken_s : float64[n]
    began_ms : int64[n]
    last_lesson_ms : when the last ride that taught began; None where it is in another file
    """
    faults = []
    if not (np.isfinite(predicted_s).all() and (predicted_s >= 0).all()):
        faults.append("eta: a ride on the network has no travel time")
    if not (np.isfinite(taken_s).all() and (taken_s > 0).all()):
        faults.append("eta: a ride was asked about whose duration is not known")
    if last_lesson_ms is not None and (began_ms <= last_lesson_ms).any():
        faults.append("eta: a ride was asked about that had begun when others still taught")
    return faults
