"""Which fee is due? Pure: the occasion is decided here, the amount is pricing's.

Source: our choice, decision 25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from matching.model import FeeKind, RideState

if TYPE_CHECKING:
    from matching.model import Ride


@dataclass(frozen=True, slots=True)
class FeeParams:
    """What a rider may do for nothing."""

    cancel_grace_s: float = 120.0
    """After a driver has accepted."""
    driver_late_s: float = 300.0
    """A driver so much later than promised is not waited for: cancelling is free again."""

    def __post_init__(self) -> None:
        """Raises ValueError for times below 0."""
        for name in ("cancel_grace_s", "driver_late_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0")


def fee_for_cancelling(ride: Ride, now_ms: int, params: FeeParams) -> FeeKind | None:
    """Does a rider who cancels now owe a fee?

    Once a driver has accepted and the grace time is over; unless that driver is still on the way although it should have been at
    the pickup long ago: later than the promised time after accepting, or than the pickup time of a scheduled ride.
    """
    assignment = ride.assignment
    if assignment is None or now_ms <= assignment.accepted_at_ms + round(params.cancel_grace_s * MS_PER_S):
        return None
    promised_ms = max(assignment.accepted_at_ms + assignment.pickup_eta_s * MS_PER_S, ride.pickup_at_ms)
    if ride.state is RideState.ACCEPTED and now_ms > promised_ms + round(params.driver_late_s * MS_PER_S):
        return None
    return FeeKind.LATE_CANCELLATION
