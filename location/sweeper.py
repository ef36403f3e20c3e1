"""Who has fallen silent? Takes them out of the index round by round. Answers never depend on it: freshness is judged on read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from location.metrics import LocationMetrics
    from location.params import LocationParams
    from location.store import LocationStore

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps one city."""

    def __init__(
        self, store: LocationStore, limit_ms: int, params: LocationParams, clock: Clock, metrics: LocationMetrics
    ) -> None:
        self._store = store
        self._limit_ms = limit_ms
        self._params = params
        self._clock = clock
        self._metrics = metrics

    async def sweep(self) -> int:
        """One bounded round; how many were found silent? Their states stay: their next fix brings them back."""
        now_ms = self._clock.now_ms()
        retention_ms = round(self._params.position_retention_s * 1000)
        silent, forgotten = await self._store.sweep(
            now_ms - self._limit_ms, now_ms + self._limit_ms, now_ms - retention_ms, self._params.sweep_limit
        )
        self._metrics.drivers_swept += silent
        self._metrics.positions_forgotten += forgotten
        return silent

    async def run(self) -> None:
        """Sweeps every period."""
        while True:
            try:
                await self.sweep()
            except DomainError as error:
                log.warning("cannot sweep", reason=error.reason)
            await self._clock.sleep(self._params.sweep_period_s)
