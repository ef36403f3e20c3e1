"""Is it worth asking? A circuit breaker as a pure state machine: a service that fails again and again is left alone for a while.

Source: M. Nygard, Release It!, chapter "Stability Patterns" (circuit breaker); figures our choice, decision 21.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from hexhail.kernel.units import MS_PER_S


class State(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    """Everybody may ask."""
    OPEN = "open"
    """Nobody may, until the pause is over."""
    HALF_OPEN = "half_open"
    """One asks on trial; nobody else may."""


class Outcome(StrEnum):
    """What came of asking."""

    ANSWERED = "answered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Nothing was asked after all, or nobody waited for the answer."""


@dataclass(frozen=True, slots=True)
class BreakerParams:
    """When a breaker opens. Raises ValueError naming the field.

    failures : so many in a row open it
    pause_s : so long it stays open before one may try
    """

    failures: int = 5
    pause_s: float = 10.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures is {self.failures}, not 1 or more")
        if not (math.isfinite(self.pause_s) and self.pause_s > 0):
            raise ValueError(f"pause_s is {self.pause_s}, not above 0")


@dataclass(frozen=True, slots=True)
class Breaker:
    """Where a breaker stands after all that was reported to it.

    failures : in a row, while closed
    shut_until_ms : while not closed, nobody is let in before
    term : grows with every change of state; whoever was let in reports under the term of then
    """

    params: BreakerParams
    state: State = State.CLOSED
    failures: int = 0
    shut_until_ms: int = 0
    term: int = 0

    def lets_in(self, now_ms: int) -> bool:
        """May one more ask now? A trial that is never reported gives way to another after a pause."""
        return self.state is State.CLOSED or now_ms >= self.shut_until_ms

    def entered(self, now_ms: int) -> Breaker:
        """Once one was let in, who reports under this `term`. Raises ValueError where nobody is."""
        if not self.lets_in(now_ms):
            raise ValueError(f"the breaker is {self.state}: nobody is let in before {self.shut_until_ms}")
        return self if self.state is State.CLOSED else self._moved(State.HALF_OPEN, now_ms)

    def reported(self, outcome: Outcome, term: int, now_ms: int) -> Breaker:
        """Once one reports. Reports under an earlier term change nothing: they tell of another time."""
        if term != self.term or self.state is State.OPEN:
            return self
        if outcome is Outcome.ANSWERED:
            return replace(self, failures=0) if self.state is State.CLOSED else self._moved(State.CLOSED, now_ms)
        if outcome is Outcome.FAILED:
            failures = self.failures + 1
            opens = self.state is State.HALF_OPEN or failures >= self.params.failures
            return self._moved(State.OPEN, now_ms) if opens else replace(self, failures=failures)
        if self.state is State.HALF_OPEN:
            return replace(self._moved(State.OPEN, now_ms), shut_until_ms=now_ms)
        return self

    def _moved(self, state: State, now_ms: int) -> Breaker:
        pause_ms = 0 if state is State.CLOSED else round(self.params.pause_s * MS_PER_S)
        return replace(self, state=state, failures=0, shut_until_ms=now_ms + pause_ms, term=self.term + 1)
