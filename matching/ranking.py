"""Which driver first? Policies by name: arrays of candidates in, an order out. Ties end on the id, so row order never matters.

Policies of one's own are installed beside these, under the entry point group `hexhail.ranking`; `matching/policies.py` finds them
and stands between them and the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

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
    capabilities : str set[n], what each driver can do, of the city's list; none at all where nobody asked
    """

    driver_ids: tuple[str, ...]
    distance_m: Floats
    pickup_eta_s: Floats
    rating_milli: Ints
    acceptance_milli: Ints
    heading_deg: Floats
    bearing_deg: Floats
    idle_s: Floats
    capabilities: tuple[frozenset[str], ...] = ()

    def __len__(self) -> int:
        """How many."""
        return len(self.driver_ids)

    def take(self, rows: Sequence[int] | Ints | Bools) -> Candidates:
        """Some of them, by row numbers or by a mask."""
        index = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.zeros(0, np.int64)
        return Candidates(**{f.name: _taken(getattr(self, f.name), index) for f in fields(self)})

    def able(self, capability: str) -> Bools:
        """Who can do this? bool[n]; nobody where capabilities are not known."""
        known = self.capabilities or (frozenset[str](),) * len(self)
        return np.array([capability in each for each in known], np.bool_)


def _taken(column: Any, index: Ints) -> Any:
    return column[index] if isinstance(column, np.ndarray) else tuple(column[row] for row in index.tolist() if column)


@dataclass(frozen=True, slots=True)
class RankingParams:
    """Which policy, what it weighs, and what becomes of one that does not do its work."""

    policy: str = "classic"
    """A built-in one, or one that is installed."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of an installed policy, which says itself what it takes."""
    fallback_policy: str = "eta"
    """A built-in one: ranks where the policy fails."""
    policy_limit_ms: float = 20.0
    """An installed policy that takes longer has failed."""
    policy_failures: int = 5
    """After so many in a row the policy is not asked for a while."""
    policy_rest_s: float = 60.0
    """How long."""
    heading_tolerance_deg: float = 45.0
    """Moving toward the pickup means: within this of the bearing to it. Our choice; M2 of docs/sources.md does not say."""
    idle_bonus_milli_per_min: int = 0
    """Fairness: what a minute without a ride adds to the score, whatever the policy, in thousandths of its own unit."""
    idle_bonus_cap_min: float = 30.0
    """More minutes than these add nothing, so that nobody is sent for across the town for having waited."""

    def __post_init__(self) -> None:
        """Raises ValueError for a fallback that could fail itself, a bonus that would punish, figures that cannot be meant."""
        if self.fallback_policy not in POLICIES:
            raise ValueError(f"fallback_policy {self.fallback_policy!r} is not among the built-in {', '.join(sorted(POLICIES))}")
        if self.options and self.policy in POLICIES:
            raise ValueError(f"options are for installed policies; {self.policy!r} is built in and takes none")
        if self.policy_limit_ms <= 0 or self.policy_failures < 1 or self.policy_rest_s <= 0:
            raise ValueError("policy_limit_ms and policy_rest_s must be above 0, policy_failures at least 1")
        if not 0 < self.heading_tolerance_deg <= 180:
            raise ValueError("heading_tolerance_deg must be above 0 and at most 180")
        if self.idle_bonus_milli_per_min < 0 or self.idle_bonus_cap_min < 0:
            raise ValueError("idle_bonus_milli_per_min and idle_bonus_cap_min must not be negative")


class PolicyFailure(StrEnum):
    """Why a policy's scores were not used."""

    RAISED = "RAISED"
    WRONG_SHAPE = "WRONG_SHAPE"
    """No scores at all, or not one for every candidate."""
    WRONG_TYPE = "WRONG_TYPE"
    """Not thousandths in whole numbers."""
    NOT_FINITE = "NOT_FINITE"
    """Not a number, or an infinite one."""
    OUT_OF_RANGE = "OUT_OF_RANGE"
    TOO_SLOW = "TOO_SLOW"
    SWITCHED_OFF = "SWITCHED_OFF"
    """It failed so often in a row that it is not asked for a while."""


class PolicyError(Exception):
    """A policy's scores cannot be used."""

    def __init__(self, failure: PolicyFailure, detail: str) -> None:
        self.failure = failure
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who comes first, and why.

    order : int64[n], row numbers, best first
    score_milli : int64[n], by row
    parts : name -> int64[n], what the score is made of, by row
    policy : whose scores these are
    failed_policy, failure : the policy that should have ranked and did not, and why; empty and None where it did
    """

    order: Ints
    score_milli: Ints
    parts: Mapping[str, Ints]
    policy: str = ""
    failed_policy: str = ""
    failure: PolicyFailure | None = None


class RankingPolicy(Protocol):
    """Scores pairs of a driver and a ride: higher is better.

    A row's score depends on that row alone, never on its place or on the other rows: phased dispatch shows a policy the
    candidates of one ride, batched dispatch all pairs of a window at once, where a pair's cost is its score below zero, so that
    a thousandth counts as a millisecond of waiting.
    """

    def __call__(self, candidates: Candidates, params: RankingParams) -> Mapping[str, Ints]:
        """Name of a part -> int64[n], thousandths; the score is their sum."""


MAX_PARTS: Final = 32
MAX_PART_MILLI: Final = 10**10
"""Beyond this no part of an installed policy's score may lie: all of them together are what an assignment adds up exactly."""
MAX_PART_NAME: Final = 40


def rank(candidates: Candidates, params: RankingParams) -> Ranking:
    """In which order does a built-in policy have these drivers asked? Best score first; equal scores by id."""
    return ranking_by(params.policy, POLICIES[params.policy](candidates, params), candidates, params)


def ranking_by(policy: str, parts: Mapping[str, Ints], candidates: Candidates, params: RankingParams) -> Ranking:
    """The order that a policy's scores make. Best score first; equal scores by id."""
    if params.idle_bonus_milli_per_min:
        parts = {**parts, "idle": parts.get("idle", 0) + idle_bonus_milli(candidates, params)}
    score_milli: Ints = sum(parts.values(), start=np.zeros(len(candidates), np.int64))
    order = np.lexsort((np.asarray(candidates.driver_ids, dtype=np.str_), -score_milli)).astype(np.int64)
    return Ranking(order, score_milli, parts, policy)


def checked_parts(given: object, rows: int) -> dict[str, Ints]:
    """What a policy gave, if it is what was asked for: name of a part -> int64[rows]. Raises PolicyError."""
    if not isinstance(given, Mapping) or not given or len(given) > MAX_PARTS:
        raise PolicyError(PolicyFailure.WRONG_SHAPE, f"gave {type(given).__name__}, not 1 to {MAX_PARTS} named parts")
    checked: dict[str, Ints] = {}
    for name, part in given.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_PART_NAME:
            raise PolicyError(PolicyFailure.WRONG_TYPE, f"names a part {name!r}, not by 1 to {MAX_PART_NAME} characters")
        checked[name] = _checked_part(name, part, rows)
    return checked


def _checked_part(name: str, part: object, rows: int) -> Ints:
    if not isinstance(part, np.ndarray) or part.shape != (rows,):
        what = f"shape {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
        raise PolicyError(PolicyFailure.WRONG_SHAPE, f"part {name!r} is {what}, not an array of {rows}")
    if part.dtype.kind == "f" and not np.isfinite(part).all():
        raise PolicyError(PolicyFailure.NOT_FINITE, f"part {name!r} holds what is no finite number")
    if part.dtype.kind not in "iu":
        raise PolicyError(PolicyFailure.WRONG_TYPE, f"part {name!r} holds {part.dtype}, not whole numbers")
    if rows and (int(part.max()) > MAX_PART_MILLI or int(part.min()) < -MAX_PART_MILLI):
        raise PolicyError(PolicyFailure.OUT_OF_RANGE, f"part {name!r} goes beyond {MAX_PART_MILLI:,}")
    return part.astype(np.int64)


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
