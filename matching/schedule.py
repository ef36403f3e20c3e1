"""When is a scheduled ride searched? Pure.

Source: our choice, decision 25.
"""

from __future__ import annotations

from dataclasses import dataclass

from hexhail.kernel.errors import invalid
from hexhail.kernel.units import MS_PER_S


@dataclass(frozen=True, slots=True)
class ScheduleParams:
    """How far ahead a ride may be wanted, and when its search begins and ends."""

    min_ahead_s: float = 15 * 60.0
    max_ahead_s: float = 7 * 24 * 3_600.0
    expected_pickup_s: float = 600.0
    """From accepting to arriving, where too few recent pickups are known."""
    max_pickup_s: float = 1_800.0
    """However long recent pickups took, no more than this is allowed for."""
    margin_s: float = 300.0
    """For finding a driver, and for arriving a little early."""
    late_s: float = 600.0
    """So long after the pickup time the search goes on."""
    busy_retry_s: float = 60.0
    """While the rider is on another ride: how soon to look again."""

    def __post_init__(self) -> None:
        """Raises ValueError where no ride could be scheduled, or a search would end before it begins."""
        for name in ("min_ahead_s", "expected_pickup_s", "max_pickup_s", "late_s", "busy_retry_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.margin_s < 0:
            raise ValueError("margin_s must not be below 0")
        if self.max_ahead_s <= self.min_ahead_s:
            raise ValueError("max_ahead_s must be above min_ahead_s")


def check_pickup_at(pickup_at_ms: int, now_ms: int, params: ScheduleParams) -> None:
    """Can a ride be wanted for then? Raises INVALID_FIELD."""
    ahead_ms = pickup_at_ms - now_ms
    if not params.min_ahead_s * MS_PER_S <= ahead_ms <= params.max_ahead_s * MS_PER_S:
        raise invalid(
            "pickup_at_ms",
            f"must lie {params.min_ahead_s:g} to {params.max_ahead_s:g} s ahead, or be 0 for a ride wanted now",
            ahead_ms=ahead_ms,
        )


def looked_at_ms(pickup_at_ms: int, params: ScheduleParams) -> int:
    """When is it first asked whether the search should begin? Early enough for the longest pickup that is allowed for."""
    return search_begins_at_ms(pickup_at_ms, params.max_pickup_s, params)


def search_begins_at_ms(pickup_at_ms: int, expected_pickup_s: float | None, params: ScheduleParams) -> int:
    """When does the search begin, if pickups take so long (None: nobody knows)?"""
    pickup_s = min(params.expected_pickup_s if expected_pickup_s is None else expected_pickup_s, params.max_pickup_s)
    return pickup_at_ms - round((pickup_s + params.margin_s) * MS_PER_S)


def search_ends_at_ms(pickup_at_ms: int, params: ScheduleParams) -> int:
    """Until when is a driver looked for?"""
    return pickup_at_ms + round(params.late_s * MS_PER_S)
