"""How scarce are drivers in each cell, and what multiplier follows? Whole thousandths throughout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pricing.model import UNSURGED_MILLI, SurgeTable

if TYPE_CHECKING:
    from hexhail.kernel.units import Cells, Ints

_MILLI = 1000


@dataclass(frozen=True, slots=True)
class SurgeParams:
    """The tiers: below `boundaries_milli[i]` of demand per driver the multiplier is `multipliers_milli[i]`, at the last and
    above it the last one; and what a recent quote weighs against an open request.

    Source: P2 of docs/sources.md. The weight of a quote is our choice: about one quote in four becomes a request.
    Raises ValueError where the steps do not rise, or do not begin at 1000.
    """

    boundaries_milli: tuple[int, ...] = (500, 1000, 2000, 3000)
    multipliers_milli: tuple[int, ...] = (1000, 1200, 1500, 2000, 2500)
    quote_weight_milli: int = 250

    def __post_init__(self) -> None:
        if len(self.multipliers_milli) != len(self.boundaries_milli) + 1:
            raise ValueError("multipliers_milli has not one entry more than boundaries_milli")
        for name in ("boundaries_milli", "multipliers_milli"):
            steps = getattr(self, name)
            if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
                raise ValueError(f"{name} does not rise from each entry to the next")
        if self.boundaries_milli and not 0 < self.boundaries_milli[0] <= self.boundaries_milli[-1] <= 1_000_000:
            raise ValueError("boundaries_milli are not of 1 to 1000000")
        if self.multipliers_milli[0] != UNSURGED_MILLI or self.multipliers_milli[-1] > 100_000:
            raise ValueError("multipliers_milli does not begin at 1000, or ends above 100000")
        if not 0 <= self.quote_weight_milli <= _MILLI:
            raise ValueError("quote_weight_milli is not of 0 to 1000")


def demand_milli(open_requests: Ints, recent_quotes: Ints, params: SurgeParams) -> Ints:
    """How much is asked for in each cell? int64[n], int64[n], counts -> int64[n], thousandths of a request."""
    return _MILLI * open_requests + params.quote_weight_milli * recent_quotes


def multipliers_milli(demand: Ints, supply: Ints, params: SurgeParams) -> Ints:
    """Which multiplier does each cell get?

    demand : int64[n], thousandths of a request, >= 0
    supply : int64[n], drivers, >= 0

    -> int64[n], thousandths. Never falls when demand grows, never rises when supply grows, stays between the first and the last
    of the tiers, and each row's answer depends on that row alone. No demand is 1000; demand without any supply is the last tier.
    Ratios are compared by cross-multiplication, so a boundary is met exactly. Source: P2 of docs/sources.md.
    """
    tier = np.zeros(len(demand), dtype=np.int64)
    for boundary_milli in params.boundaries_milli:
        tier += demand >= boundary_milli * supply
    tier[demand == 0] = 0
    return np.asarray(params.multipliers_milli, dtype=np.int64)[tier]


def surge_table(
    supply: tuple[Cells, Ints], open_requests: tuple[Cells, Ints], recent_quotes: tuple[Cells, Ints], params: SurgeParams
) -> SurgeTable:
    """What is the surge of every cell in which there is a driver, an open request or a recent quote?

    Each argument is a column of cells, uint64[m], and one of counts, int64[m], in any order; counts of a cell named twice add up.
    """
    counted = (supply, open_requests, recent_quotes)
    cells, row = np.unique(np.concatenate([column for column, _ in counted]), return_inverse=True)
    sums, begin = [], 0
    for column, counts in counted:
        total = np.zeros(len(cells), dtype=np.int64)
        np.add.at(total, row[begin : begin + len(column)], counts)
        sums.append(total)
        begin += len(column)
    available, requests, quotes = sums
    demand = demand_milli(requests, quotes, params)
    return SurgeTable(cells, multipliers_milli(demand, available, params), available, demand)
