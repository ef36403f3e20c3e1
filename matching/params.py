"""The `[matching]` section of a city's file."""

from __future__ import annotations

from dataclasses import dataclass, field

from matching.offers import OfferParams
from matching.progress import ProgressParams
from matching.ranking import RankingParams
from matching.records import RecordParams
from matching.relaying import RelayParams


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How many drivers are looked at."""

    candidates: int = 20
    """At the least; three times a phase's size where that is more."""
    max_pages: int = 4
    """When too few of them can be asked, the next nearest are looked at, this often."""

    def __post_init__(self) -> None:
        """Raises ValueError where nobody would be looked at."""
        if self.candidates < 1 or self.max_pages < 1:
            raise ValueError("candidates and max_pages must be at least 1")


@dataclass(frozen=True, slots=True)
class MatchingParams:
    """The `[matching]` section of a city's file."""

    offers: OfferParams = field(default_factory=OfferParams)
    ranking: RankingParams = field(default_factory=RankingParams)
    search: SearchParams = field(default_factory=SearchParams)
    records: RecordParams = field(default_factory=RecordParams)
    progress: ProgressParams = field(default_factory=ProgressParams)
    tracking_period_s: float = 3.0
    events: RelayParams = field(default_factory=RelayParams)
