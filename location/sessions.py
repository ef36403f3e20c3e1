"""Which session is newer? Every stream of fixes opens one; a driver's newest wins, on whichever worker it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.kernel.errors import invalid

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from location.metrics import LocationMetrics
    from location.store import LocationStore


class Sessions:
    """Gives out the session ids of one city: the time of opening in ms, or one more than the newest given out, if that is later.

    So a driver that connects again within the same millisecond, on another worker, or after the clock was moved, is still newer.
    """

    def __init__(self, store: LocationStore, clock: Clock, metrics: LocationMetrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._last = 0

    async def open(self) -> int:
        """A session id newer than all before, even where the store has just lost count. Raises STORE_UNAVAILABLE."""
        session = await self._store.open_session(max(self._clock.now_ms(), self._last + 1))
        self._last = max(self._last, session)
        self._metrics.sessions_opened += 1
        return session

    async def resume(self, session: int) -> int:
        """Is this an id that was given out? Raises INVALID_FIELD otherwise, and STORE_UNAVAILABLE."""
        if session > max(self._clock.now_ms(), self._last):
            self._last = max(self._last, await self._store.last_session())
            if session > self._last:
                raise invalid("session_id", "was not given out by this service")
        return session
