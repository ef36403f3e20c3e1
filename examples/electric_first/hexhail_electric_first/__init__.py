"""Electric cars first, where they are not much farther away: a ranking policy of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hexhail.kernel.units import Ints
    from matching.ranking import Candidates, RankingParams


@dataclass(frozen=True, slots=True)
class ElectricFirst:
    """Shortest pickup time first, an electric car's less a head start. The fields are the city's `[matching.ranking.options]`."""

    capability: str = "electric"
    """Which of the city's capabilities electric cars have."""
    head_start_s: float = 120.0
    """So much farther away than another an electric car may be, and is asked first all the same."""

    def __post_init__(self) -> None:
        """Raises ValueError for a head start that would be none."""
        if self.head_start_s <= 0:
            raise ValueError("head_start_s must be above 0")

    def __call__(self, candidates: Candidates, params: RankingParams) -> dict[str, Ints]:  # noqa: ARG002 - as policies are called
        """Name of a part -> int64[n], thousandths of a second; the score is their sum."""
        pickup_eta_s = np.minimum(candidates.pickup_eta_s, 1e6)  # infinite where there is no way
        return {
            "pickup_eta": -np.rint(pickup_eta_s * 1000).astype(np.int64),
            "electric": np.where(candidates.able(self.capability), round(self.head_start_s * 1000), 0).astype(np.int64),
        }
