"""Does the driver still come? From check to check: what is remembered, what is seen, and what follows. Pure.

Only what location has answered, whole and without a pause, counts against a driver: missing data is not absence.

Source: our choice, decision 25.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from matching.model import RideState

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import DriverId, RideId

_CHECKS_A_PAUSE = 3
"""So many times the period between two checks is a pause: nobody looked meanwhile."""


@dataclass(frozen=True, slots=True)
class ProgressParams:
    """How often drivers on a ride are looked at, and what is too little."""

    progress_check_s: float = 20.0
    min_progress: float = 0.1
    """The time left must fall by this share of the time that has passed."""
    checks_without_progress: int = 9
    """So many in a row end the assignment."""
    near_s: float = 60.0
    """Who is so near has arrived, whether it says so or not: no further progress is asked for."""
    pickup_silent_limit_s: float = 120.0
    """On the way to the pickup, or waiting there."""
    ride_silent_limit_s: float = 600.0

    def __post_init__(self) -> None:
        """Raises ValueError where every driver, or none, would fall short."""
        for name in ("progress_check_s", "min_progress", "near_s", "pickup_silent_limit_s", "ride_silent_limit_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.min_progress >= 1:
            raise ValueError("min_progress must be below 1: nobody is faster than expected all the way")
        if self.checks_without_progress < 1:
            raise ValueError("checks_without_progress must be at least 1")


@dataclass(frozen=True, slots=True)
class Watch:
    """What the checks so far say of the driver of a ride, in one of the ride's versions."""

    version: int
    """Of the ride: whoever moves it is alive, so that all begins anew with the next one."""
    checked_at_ms: int
    epoch: str
    """Of the states that location held: what it has forgotten says nothing."""
    silent_since_ms: int | None = None
    """The first of the checks in a row that found nobody."""
    time_left_s: float | None = None
    """When it was last known."""
    time_left_at_ms: int = 0
    without_progress: int = 0
    """Checks in a row."""


@dataclass(frozen=True, slots=True)
class Check:
    """A ride whose driver is to be looked at."""

    ride_id: RideId
    driver_id: DriverId
    state: RideState
    version: int
    pickup: Place
    pickup_at_ms: int
    watch: Watch | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What location and routing say of a driver now.

    heard_at_ms : when location last heard of the driver; None where that was not within its freshness limit
    time_left_s : to the pickup, from where the driver was then; None where it is not known, or not needed
    """

    epoch: str
    heard_at_ms: int | None
    time_left_s: float | None = None


class Verdict(StrEnum):
    """What a check ends in."""

    FINE = "FINE"
    NO_PROGRESS = "NO_PROGRESS"
    DRIVER_SILENT = "DRIVER_SILENT"


def judge(check: Check, sight: Sight, now_ms: int, params: ProgressParams) -> tuple[Watch, Verdict]:
    """What does this look at the driver say, after those before?

    Silence counts from the first look that found nobody, as long as looks follow upon each other in one epoch and one version of
    the ride. Progress is asked for on the way to the pickup, farther from it than `near_s`, and where the driver would be late
    for a scheduled ride; a position no newer than the last one says nothing of it.
    """
    before = check.watch if _goes_on(check, sight, now_ms, params) else None
    silent_since_ms, time_left_s, time_left_at_ms, without_progress, verdict = None, None, 0, 0, Verdict.FINE
    if before is not None:
        time_left_s, time_left_at_ms, without_progress = before.time_left_s, before.time_left_at_ms, before.without_progress
    if sight.heard_at_ms is None:
        silent_since_ms = now_ms if before is None or before.silent_since_ms is None else before.silent_since_ms
        limit_s = params.ride_silent_limit_s if check.state is RideState.IN_PROGRESS else params.pickup_silent_limit_s
        if now_ms - silent_since_ms >= limit_s * MS_PER_S:
            verdict = Verdict.DRIVER_SILENT
    elif check.state is RideState.ACCEPTED and sight.time_left_s is not None and sight.heard_at_ms > time_left_at_ms:
        falls_short = before is not None and _falls_short(check, before, sight.time_left_s, sight.heard_at_ms, params)
        without_progress = without_progress + 1 if falls_short else 0
        time_left_s, time_left_at_ms = sight.time_left_s, sight.heard_at_ms
        if without_progress >= params.checks_without_progress:
            verdict = Verdict.NO_PROGRESS
    watch = Watch(check.version, now_ms, sight.epoch, silent_since_ms, time_left_s, time_left_at_ms, without_progress)
    return watch, verdict


def _goes_on(check: Check, sight: Sight, now_ms: int, params: ProgressParams) -> bool:
    watch = check.watch
    if watch is None or watch.version != check.version or watch.epoch != sight.epoch:
        return False
    return now_ms - watch.checked_at_ms <= _CHECKS_A_PAUSE * params.progress_check_s * MS_PER_S


def _falls_short(check: Check, watch: Watch, time_left_s: float, heard_at_ms: int, params: ProgressParams) -> bool:
    if watch.time_left_s is None or time_left_s <= params.near_s:
        return False
    if heard_at_ms + round(time_left_s * MS_PER_S) <= check.pickup_at_ms:
        return False
    passed_s = (heard_at_ms - watch.time_left_at_ms) / MS_PER_S
    return watch.time_left_s - time_left_s < params.min_progress * passed_s
