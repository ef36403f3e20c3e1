"""How many calls may be under way before new work is refused? As many as the service has lately ended in good time.

A queue that grows until its callers have gone serves nobody: it works for answers that nobody reads. So calls that begin
something (a ride, a quote) are refused once more are under way than can be ended in time, and those that carry on with what has
begun (an offer's answer, an arrival) still find room, up to a bound that does not move.
Source: additive increase, multiplicative decrease (Chiu and Jain 1989), on calls under way; the two classes are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class AdmissionParams:
    """max_calls : under way at once, whatever they are
    least_calls : so many may always be under way, however slow they are
    slow_s : a call that takes longer says that too many are under way
    decrease : by this factor the limit then falls, once in `pause_s` at most
    """

    max_calls: int = 2_000
    least_calls: int = 16
    slow_s: float = 0.5
    decrease: float = 0.8
    pause_s: float = 0.25
    retry_after_ms: int = 1_000

    def __post_init__(self) -> None:
        """Raises ValueError where nothing could be served, or nothing learned."""
        if not (0 < self.decrease < 1 and self.slow_s > 0 and self.pause_s >= 0 and min(self.max_calls, self.least_calls) > 0):
            raise ValueError("admission needs 0 < decrease < 1, slow_s > 0, pause_s >= 0, max_calls > 0 and least_calls > 0")


class Admission:
    """The calls of one server that are under way, and how many of them may be."""

    def __init__(self, params: AdmissionParams, now_s: Callable[[], float]) -> None:
        """`now_s` only ever grows."""
        self._params = params
        self._now_s = now_s
        self._limit = float(params.max_calls)
        self._decreased_at_s = -params.pause_s
        self.under_way = 0

    @property
    def limit(self) -> int:
        """From how many calls under way on is new work refused?"""
        return int(self._limit)

    def enter(self, *, begins_work: bool) -> float:
        """One more call is under way; the moment it began, for `leave`. Raises OVERLOADED, and then it is not."""
        if self.under_way >= (self.limit if begins_work else self._params.max_calls):
            raise DomainError(Reason.OVERLOADED, "too many calls at once", retry_after_ms=self._params.retry_after_ms)
        self.under_way += 1
        return self._now_s()

    def leave(self, began_s: float) -> None:
        """The call that began then has ended, somehow."""
        params, now_s = self._params, self._now_s()
        if now_s - began_s > params.slow_s:
            if now_s - self._decreased_at_s >= params.pause_s:
                self._decreased_at_s = now_s
                least = min(params.least_calls, params.max_calls)
                self._limit = max(float(least), params.decrease * min(self._limit, float(self.under_way)))
        elif 2 * self.under_way >= self._limit:
            self._limit = min(self._limit + 1.0, float(params.max_calls))
        self.under_way -= 1
