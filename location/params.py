"""The `[location]` section of a city's file."""

from __future__ import annotations

from dataclasses import dataclass, field

from location.freshness import BeliefParams, ReportingParams
from location.nearby import NearbyParams
from location.zones import ZoneParams


@dataclass(frozen=True, slots=True)
class LocationParams:
    """How a city follows its drivers. Source: our choice.

    ack_spacing_ms : a stream's fixes are acknowledged together, no more often than this
    sweep_period_s : how often silent drivers are taken out of the index (answers never show them, swept or not)
    sweep_limit : how many a bucket and round are looked at, so that nobody waits long for a sweep
    position_retention_s : how long the last position of a silent driver is kept; it also orders late fixes of old sessions
    supply_max_age_ms : how old the snapshot may be from which supply is counted
    """

    ack_spacing_ms: int = 1_000
    sweep_period_s: float = 1.0
    sweep_limit: int = 500
    position_retention_s: float = 3_600.0
    supply_max_age_ms: int = 2_000
    belief: BeliefParams = field(default_factory=BeliefParams)
    reporting: ReportingParams = field(default_factory=ReportingParams)
    nearby: NearbyParams = field(default_factory=NearbyParams)
    zones: ZoneParams = field(default_factory=ZoneParams)

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 10 <= self.ack_spacing_ms <= 10_000:
            raise ValueError("ack_spacing_ms must be 10 to 10,000")
        if not 0.05 <= self.sweep_period_s <= 60:
            raise ValueError("sweep_period_s must be 0.05 to 60")
        if not 1 <= self.sweep_limit <= 4_000:
            raise ValueError("sweep_limit must be 1 to 4,000")
        if not 60 <= self.position_retention_s <= 30 * 24 * 3600:
            raise ValueError("position_retention_s must be 60 s to 30 days")
        if not 0 <= self.supply_max_age_ms <= 2_000:
            raise ValueError("supply_max_age_ms must be 0 to 2,000")
