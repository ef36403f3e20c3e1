"""The multiplier never falls with demand, never rises with supply, stays in its tiers, and depends on its own row alone."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pricing.model import SurgeTable
from pricing.surge import SurgeParams, demand_milli, multipliers_milli, surge_table
from tests.pricing.world import spec

CASES = spec("surge")["cases"]
PARAMS = SurgeParams()

COUNTS = st.integers(0, 50)
ROWS = arrays(np.int64, (3, 8), elements=COUNTS)
CELL_COUNTS = st.dictionaries(st.integers(1, 30), COUNTS, max_size=12)


@st.composite
def tiers(draw: st.DrawFn) -> SurgeParams:
    boundaries = sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=6)))
    above = sorted(draw(st.sets(st.integers(1001, 9_000), min_size=len(boundaries), max_size=len(boundaries))))
    return SurgeParams(tuple(boundaries), (1000, *above), draw(st.integers(0, 1000)))


def columns(counts: dict[int, int]) -> tuple[Any, Any]:
    return np.array(list(counts), dtype=np.uint64), np.array(list(counts.values()), dtype=np.int64)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_case_of_the_table(case: dict[str, Any]) -> None:
    demand = demand_milli(np.array([case["open_requests"]]), np.array([case["recent_quotes"]]), PARAMS)
    assert demand.tolist() == [case["demand_milli"]]
    assert multipliers_milli(demand, np.array([case["supply"]]), PARAMS).tolist() == [case["multiplier_milli"]]


@given(ROWS, ROWS, tiers())
def test_more_demand_never_lowers_a_multiplier(rows: Any, more: Any, params: SurgeParams) -> None:
    requests, quotes, supply = rows
    less = multipliers_milli(demand_milli(requests, quotes, params), supply, params)
    greater = multipliers_milli(demand_milli(requests + more[0], quotes + more[1], params), supply, params)
    assert (less <= greater).all()


@given(ROWS, ROWS, tiers())
def test_more_supply_never_raises_a_multiplier(rows: Any, more: Any, params: SurgeParams) -> None:
    requests, quotes, supply = rows
    demand = demand_milli(requests, quotes, params)
    assert (multipliers_milli(demand, supply, params) >= multipliers_milli(demand, supply + more[2], params)).all()


@given(ROWS, tiers())
def test_multipliers_are_those_of_the_exact_ratio(rows: Any, params: SurgeParams) -> None:
    requests, quotes, supply = rows
    demand = demand_milli(requests, quotes, params)
    for asked, drivers, multiplier in zip(
        demand.tolist(), supply.tolist(), multipliers_milli(demand, supply, params).tolist(), strict=True
    ):
        if asked == 0:
            expected = 0
        elif drivers == 0:
            expected = len(params.boundaries_milli)
        else:
            expected = sum(Fraction(asked, drivers) >= boundary for boundary in params.boundaries_milli)
        assert multiplier == params.multipliers_milli[expected]


@given(CELL_COUNTS, CELL_COUNTS, CELL_COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_rows_makes_no_difference(
    supply: dict[int, int], requests: dict[int, int], quotes: dict[int, int], random: Any
) -> None:
    def shuffled(counts: dict[int, int]) -> dict[int, int]:
        items = list(counts.items())
        random.shuffle(items)
        return dict(items)

    one = surge_table(columns(supply), columns(requests), columns(quotes), PARAMS)
    other = surge_table(columns(shuffled(supply)), columns(shuffled(requests)), columns(shuffled(quotes)), PARAMS)
    for name in ("cells", "multiplier_milli", "supply", "demand_milli"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


@given(CELL_COUNTS, CELL_COUNTS, CELL_COUNTS)
def test_the_table_holds_every_cell_that_was_counted(
    supply: dict[int, int], requests: dict[int, int], quotes: dict[int, int]
) -> None:
    table = surge_table(columns(supply), columns(requests), columns(quotes), PARAMS)
    assert table.cells.tolist() == sorted(set(supply) | set(requests) | set(quotes))
    for row, cell in enumerate(table.cells.tolist()):
        assert table.supply[row] == supply.get(cell, 0)
        assert table.demand_milli[row] == 1000 * requests.get(cell, 0) + 250 * quotes.get(cell, 0)


def test_counts_of_a_cell_named_twice_add_up() -> None:
    twice = (np.array([5, 5], dtype=np.uint64), np.array([2, 3], dtype=np.int64))
    assert surge_table(twice, columns({}), columns({}), PARAMS).supply.tolist() == [5]


@given(CELL_COUNTS, CELL_COUNTS)
def test_changes_put_upon_the_earlier_table_give_the_later_one(before: dict[int, int], after: dict[int, int]) -> None:
    earlier = surge_table(columns({}), columns(before), columns({}), PARAMS)
    later = surge_table(columns({}), columns(after), columns({}), PARAMS)
    known = dict(zip(earlier.surging().cells.tolist(), earlier.surging().multiplier_milli.tolist(), strict=True))
    changes = later.changed_since(earlier)
    known.update(zip(changes.cells.tolist(), changes.multiplier_milli.tolist(), strict=True))
    surging = later.surging()
    assert {cell: m for cell, m in known.items() if m > 1000} == dict(
        zip(surging.cells.tolist(), surging.multiplier_milli.tolist(), strict=True)
    )


def test_a_cell_that_is_not_listed_has_no_surge() -> None:
    empty = surge_table(columns({}), columns({}), columns({}), PARAMS)
    row = empty.of(np.array([7], dtype=np.uint64))
    assert (row.multiplier_milli.tolist(), row.supply.tolist(), row.demand_milli.tolist()) == ([1000], [0], [0])


def test_a_table_whose_cells_do_not_ascend_is_refused() -> None:
    numbers = np.array([1, 1], dtype=np.int64)
    with pytest.raises(ValueError, match="ascend"):
        SurgeTable(np.array([2, 2], dtype=np.uint64), numbers, numbers, numbers)


@pytest.mark.parametrize(
    ("boundaries", "multipliers", "weight"),
    [
        ((500,), (1000,), 250),
        ((500, 500), (1000, 1200, 1500), 250),
        ((500, 400), (1000, 1200, 1500), 250),
        ((500, 1000), (1000, 1500, 1200), 250),
        ((0, 1000), (1000, 1200, 1500), 250),
        ((500, 1000), (900, 1200, 1500), 250),
        ((500, 1000), (1100, 1200, 1500), 250),
        ((500, 1000), (1000, 1200, 1500), -1),
        ((500, 1000), (1000, 1200, 1500), 1001),
    ],
)
def test_tiers_that_do_not_rise_from_one_are_refused(
    boundaries: tuple[int, ...], multipliers: tuple[int, ...], weight: int
) -> None:
    with pytest.raises(ValueError):
        SurgeParams(boundaries, multipliers, weight)
