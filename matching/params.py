"""The `[matching]` section of a city's file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from matching.assignment import AssignmentParams
from matching.offers import OfferParams
from matching.progress import ProgressParams
from matching.ranking import RankingParams
from matching.records import RecordParams
from matching.relaying import RelayParams


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How many drivers are looked at."""

    candidates: int = 20
    """At the least; three times a phase's size where that is more."""
    max_pages: int = 4
    """When too few of them can be asked, the next nearest are looked at, this often."""

    def __post_init__(self) -> None:
        """Raises ValueError where nobody would be looked at."""
        if self.candidates < 1 or self.max_pages < 1:
            raise ValueError("candidates and max_pages must be at least 1")


class Dispatch(StrEnum):
    """How a city's rides find their drivers."""

    PHASED = "phased"
    """Each for itself, as soon as it is requested: several drivers are asked, then the next ones."""
    BATCHED = "batched"
    """All together, in windows: one driver is asked for each ride."""


@dataclass(frozen=True, slots=True)
class BatchParams:
    """The `[matching.batch]` section: a batched city's windows.

    window_s : from one to the next
    lease_s : so long after the worker that leads has fallen silent another one leads
    looked_at : the nearest drivers of each ride that location is asked for, from whom those who are there soonest are taken
    radius_m : how far from the pickup it looks
    max_rides : of one window; those requested first
    told_waiting_s : of a ride left waiting, the candidates are logged so often
    policy_limit_ms : so long an installed policy may take for all pairs of a window
    """

    window_s: float = 2.0
    lease_s: float = 6.0
    looked_at: int = 60
    radius_m: float = 5_000.0
    max_rides: int = 5_000
    told_waiting_s: float = 10.0
    policy_limit_ms: float = 200.0
    assignment: AssignmentParams = field(default_factory=AssignmentParams)

    def __post_init__(self) -> None:
        """Raises ValueError where a leader's lease would run out between its windows, or where a window would be empty."""
        if min(self.window_s, self.radius_m, self.told_waiting_s, self.policy_limit_ms) <= 0:
            raise ValueError("window_s, radius_m, told_waiting_s and policy_limit_ms must be above 0")
        if self.lease_s <= self.window_s:
            raise ValueError("lease_s must be above window_s: the leader renews it with every window")
        if not 1 <= self.looked_at <= 1_000 or not 1 <= self.max_rides <= 50_000:
            raise ValueError("looked_at must be 1 to 1,000, max_rides 1 to 50,000")


@dataclass(frozen=True, slots=True)
class MatchingParams:
    """The `[matching]` section of a city's file."""

    dispatch: str = Dispatch.PHASED
    """One of `Dispatch`."""
    batch: BatchParams = field(default_factory=BatchParams)
    offers: OfferParams = field(default_factory=OfferParams)
    ranking: RankingParams = field(default_factory=RankingParams)
    search: SearchParams = field(default_factory=SearchParams)
    records: RecordParams = field(default_factory=RecordParams)
    progress: ProgressParams = field(default_factory=ProgressParams)
    tracking_period_s: float = 3.0
    events: RelayParams = field(default_factory=RelayParams)

    def __post_init__(self) -> None:
        """Raises ValueError for a dispatch that is none, and where two keys say different things."""
        if self.dispatch not in set(Dispatch):
            raise ValueError(f"dispatch {self.dispatch!r} is none of {', '.join(Dispatch)}")
        if self.offers.in_windows:
            raise ValueError('in_windows follows from dispatch = "batched", and is not given')

    @property
    def in_windows(self) -> bool:
        """Are all who wait served together?"""
        return self.dispatch == Dispatch.BATCHED

    @property
    def lifecycle(self) -> OfferParams:
        """By what a ride's life is decided in this city."""
        return replace(self.offers, in_windows=self.in_windows)
