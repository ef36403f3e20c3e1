"""Which fixes are believed, which is the newest, and what is fresh: case tables and laws."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from location.freshness import BeliefParams, Box, fresh, judge, received_at_ms, supersede
from location.model import FIX, PENDING, DropReason, Records
from tests.location.world import NOON_MS, fix_message, fix_row

if TYPE_CHECKING:
    from tests.location.world import World

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "specs" / "freshness.json").read_text())["cases"]
GRIDPORT = Box(40.47, -74.03, 40.53, -73.97).widened(20_000)
ALLOWED = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def figures(case: dict[str, Any]) -> dict[str, Any]:
    return {name: ALLOWED[value] if isinstance(value, str) else value for name, value in case["fix"].items()}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_case_holds_for_the_pure_function(case: dict[str, Any]) -> None:
    # what a phone explicitly calls "not a number" reaches the belief as infinite: NaN there means absent
    said: dict[str, Any] = {k: math.inf if k not in {"lat", "lng"} and math.isnan(v) else v for k, v in figures(case).items()}
    outcome = judge(fix_row(**said), GRIDPORT, BeliefParams())[0]
    assert outcome == (PENDING if case["drop"] is None else DropReason[case["drop"]])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_each_case_holds_through_grpc(world: World, case: dict[str, Any]) -> None:
    ack = (await world.report("d1", fix_message(1, **figures(case)))).ack
    assert [DropReason(drop.reason).name for drop in ack.drops] == ([] if case["drop"] is None else [case["drop"]])
    assert ack.accepted == (case["drop"] is None)


columns = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2), st.integers(1, 4)), max_size=20)


def batch(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Records]:
    fixes = np.zeros(len(rows), dtype=FIX)
    for name, column in (("session", 1), ("sequence", 2)):
        fixes[name] = [row[column] for row in rows]
    return np.array([row[0] for row in rows], dtype=np.int64), fixes


@given(columns)
def test_of_each_driver_exactly_the_newest_is_kept(rows: list[tuple[int, int, int]]) -> None:
    outcomes = supersede(*batch(rows))
    for driver in {row[0] for row in rows}:
        mine = [row for row in range(len(rows)) if rows[row][0] == driver]
        newest = max(rows[row][1:] for row in mine)
        equals = [row for row in mine if rows[row][1:] == newest]
        for row in mine:
            if row == equals[-1]:
                assert outcomes[row] == PENDING
            else:
                assert outcomes[row] == (DropReason.NOT_NEWER if row in equals else DropReason.SUPERSEDED)


@given(st.lists(st.integers(-(2**62), 2**62), max_size=10), st.integers(0, 10_000))
def test_a_receipt_is_never_later_than_the_arrival_nor_earlier_than_the_bounded_delay(phones: list[int], bound_ms: int) -> None:
    receipts = received_at_ms(NOON_MS, np.array(phones, dtype=np.int64), BeliefParams(max_network_delay_ms=bound_ms))
    assert ((receipts <= NOON_MS) & (receipts >= NOON_MS - bound_ms)).all()
    assert bound_ms > 0 or (receipts == NOON_MS).all()


def test_fresh_means_less_than_the_limit_old_and_of_this_clock() -> None:
    ages_ms = np.array([0, 29_999, 30_000, -500, -30_000])
    assert fresh(NOON_MS - ages_ms, NOON_MS, 30_000).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("wrong", [{"max_accuracy_m": 0}, {"city_margin_m": -1}, {"max_network_delay_ms": -1}])
def test_belief_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BeliefParams(**wrong)
