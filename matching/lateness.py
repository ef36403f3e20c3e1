"""Do searches begin when they are due? Where they no longer do, a new ride would only be late as well, and make others later.

Source: our choice.
"""

from __future__ import annotations

from hexhail.kernel.errors import DomainError, Reason

LIMIT_MS = 3_000
"""A ride that would be looked at later than this is better refused: its first offers would come after a rider's patience."""
SHARE = 0.1
"""Of the newest ride in what is believed."""
FEWEST = 20
"""Before so many rides in a row nothing is believed: a process that has just started finds old deadlines."""
FORGOTTEN_MS = 2_000
"""Without a ride in this time, nothing is known."""


class Lateness:
    """By how much rides that are due are looked at too late, of late."""

    def __init__(self) -> None:
        self._late_ms = 0.0
        self._count = 0
        self._seen_at_ms = 0

    def see(self, due_at_ms: int, now_ms: int) -> None:
        """A ride that was due then is looked at now."""
        if now_ms - self._seen_at_ms > FORGOTTEN_MS:
            self._late_ms, self._count = 0.0, 0
        late_ms = max(0, now_ms - due_at_ms)
        self._late_ms += SHARE * (late_ms - self._late_ms)
        self._count += 1
        self._seen_at_ms = now_ms

    def expected_ms(self, now_ms: int) -> float:
        """How late would a ride be looked at that is due now? 0 where that is not known."""
        known = self._count >= FEWEST and now_ms - self._seen_at_ms <= FORGOTTEN_MS
        return self._late_ms if known else 0.0

    def check(self, now_ms: int) -> None:
        """Raises OVERLOADED where a new ride would be looked at too late."""
        late_ms = self.expected_ms(now_ms)
        if late_ms > LIMIT_MS:
            raise DomainError(
                Reason.OVERLOADED, f"rides are searched for {late_ms / 1000:.0f} s late: no more now", retry_after_ms=2_000
            )
