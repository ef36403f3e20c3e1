"""Which driver first? Policies by name: arrays of candidates in, an order out. Ties end on the id, so row order never matters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Candidates:
    """Drivers considered for one ride, as columns of one length.

    driver_ids : str[n]
    distance_m : float64[n], great circle to the pickup
    pickup_eta_s : float64[n], by road; inf where there is no way
    rating_milli : int64[n], 0 to 5,000
    acceptance_milli : int64[n], 0 to 1,000
    heading_deg : float64[n], clockwise from north; nan where unknown
    bearing_deg : float64[n], from the driver to the pickup
    idle_s : float64[n], how long the driver has been free: since going online, or since its last ride let go of it; 0 on a ride
    """

    driver_ids: tuple[str, ...]
    distance_m: Floats
    pickup_eta_s: Floats
    rating_milli: Ints
    acceptance_milli: Ints
    heading_deg: Floats
    bearing_deg: Floats
    idle_s: Floats

    def __len__(self) -> int:
        """How many."""
        return len(self.driver_ids)

    def take(self, rows: Sequence[int] | Ints | Bools) -> Candidates:
        """Some of them, by row numbers or by a mask."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.zeros(0, np.int64)
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "driver_ids"}
        return Candidates(driver_ids=tuple(self.driver_ids[row] for row in index.tolist()), **columns)


@dataclass(frozen=True, slots=True)
class RankingParams:
    """Which policy, and what it weighs."""

    policy: str = "classic"
    heading_tolerance_deg: float = 45.0
    """Moving toward the pickup means: within this of the bearing to it. Our choice; M2 of docs/sources.md does not say."""
    idle_bonus_milli_per_min: int = 0
    """Fairness: what a minute without a ride adds to the score, whatever the policy, in thousandths of its own unit."""
    idle_bonus_cap_min: float = 30.0
    """More minutes than these add nothing, so that nobody is sent for across the town for having waited."""

    def __post_init__(self) -> None:
        """Raises ValueError for a policy that is not there, or a bonus that would punish."""
        if self.policy not in POLICIES:
            raise ValueError(f"policy {self.policy!r} is not among {', '.join(sorted(POLICIES))}")
        if not 0 < self.heading_tolerance_deg <= 180:
            raise ValueError("heading_tolerance_deg must be above 0 and at most 180")
        if self.idle_bonus_milli_per_min < 0 or self.idle_bonus_cap_min < 0:
            raise ValueError("idle_bonus_milli_per_min and idle_bonus_cap_min must not be negative")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who comes first, and why.

    order : int64[n], row numbers, best first
    score_milli : int64[n], by row
    parts : name -> int64[n], what the score is made of, by row
    """

    order: Ints
    score_milli: Ints
    parts: dict[str, Ints]


class RankingPolicy(Protocol):
    """Scores candidates: higher is better."""

    def __call__(self, candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
        """Name of a part -> int64[n], thousandths; the score is their sum."""


def rank(candidates: Candidates, params: RankingParams) -> Ranking:
    """In which order are these drivers asked? Best score first; equal scores by id."""
    parts = POLICIES[params.policy](candidates, params)
    if params.idle_bonus_milli_per_min:
        parts = {**parts, "idle": idle_bonus_milli(candidates, params)}
    score_milli: Ints = sum(parts.values(), start=np.zeros(len(candidates), np.int64))
    order = np.lexsort((np.asarray(candidates.driver_ids, dtype=np.str_), -score_milli)).astype(np.int64)
    return Ranking(order, score_milli, parts)


def classic(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
    """100 - 2 per km + 10 x rating + 5 x acceptance rate + 15 when moving toward the pickup. Source: M2 of docs/sources.md."""
    off_course_deg = np.abs((candidates.heading_deg - candidates.bearing_deg + 180.0) % 360.0 - 180.0)
    toward = np.nan_to_num(off_course_deg, nan=360.0) <= params.heading_tolerance_deg
    return {
        "base": np.full(len(candidates), 100_000, np.int64),
        "distance": -_milli(2.0 * candidates.distance_m / 1000.0),
        "rating": 10 * candidates.rating_milli,
        "acceptance": 5 * candidates.acceptance_milli,
        "toward_pickup": np.where(toward, 15_000, 0).astype(np.int64),
    }


def eta_weighted(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
    """0.4 x rating / 5 + 0.6 / (eta + 1), the eta in minutes. Source: M3 of docs/sources.md."""
    return {
        "rating": _milli(np.asarray(0.4 * candidates.rating_milli / 5_000.0, np.float64)),
        "pickup_eta": _milli(0.6 / (candidates.pickup_eta_s / 60.0 + 1.0)),
    }


def eta(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
    """Shortest pickup time first: the score is the negative time. Source: our choice."""
    return {"pickup_eta": -_milli(np.minimum(candidates.pickup_eta_s, 1e9))}


POLICIES: dict[str, RankingPolicy] = {"classic": classic, "eta_weighted": eta_weighted, "eta": eta}


def idle_bonus_milli(candidates: Candidates, params: RankingParams) -> Ints:
    """What does waiting add to each score? int64[n], thousandths, growing up to the cap. Source: our choice, decision 26."""
    waited_min = np.minimum(candidates.idle_s / 60.0, params.idle_bonus_cap_min)
    return np.asarray(np.rint(params.idle_bonus_milli_per_min * waited_min), np.int64)


def _milli(values: Floats) -> Ints:
    return np.rint(values * 1000.0).astype(np.int64)
