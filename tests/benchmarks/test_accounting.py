"""A benchmark whose fixes or answers do not add up says so: each check is fed with what is right, and with what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accounting import (
    GEOHASH_M,
    Found,
    Tally,
    answer_faults,
    baseline_faults,
    moving_faults,
    nearest,
    position_faults,
    tally_faults,
)

IDS = ["a", "b", "c", "d"]


def tally(sent: int = 10, accepted: int = 10, messages: int = 10, up_to: int = 10, **drops: int) -> Tally:
    return Tally(sent, accepted, Counter(drops), messages, up_to)


def test_a_load_of_which_every_fix_is_acknowledged_adds_up() -> None:
    assert tally_faults("load", tally()) == []
    assert tally_faults("load", tally(accepted=8, SUPERSEDED=2), frozenset({"SUPERSEDED"})) == []


@pytest.mark.parametrize(
    ("counted", "complaint"),
    [
        (tally(accepted=9), "10 fixes sent, but 9 accepted and 0 dropped"),
        (tally(accepted=11), "10 fixes sent, but 11 accepted and 0 dropped"),
        (tally(accepted=9, SUPERSEDED=2), "10 fixes sent, but 9 accepted and 2 dropped"),
        (tally(up_to=9), "10 messages sent, but acknowledged up to 9"),
        (tally(accepted=8, NOT_NEWER=2), "fixes dropped for NOT_NEWER (2)"),
        (tally(0, 0, 0, 0), "nothing was sent"),
    ],
)
def test_a_load_that_does_not_add_up_is_a_fault(counted: Tally, complaint: str) -> None:
    (fault,) = tally_faults("load", counted, frozenset({"SUPERSEDED"}))
    assert complaint in fault


def test_a_drop_that_the_load_gives_no_reason_for_is_a_fault() -> None:
    assert tally_faults("load", tally(accepted=8, SUPERSEDED=2)) != []


def test_tallies_add_up() -> None:
    both = tally(accepted=8, SUPERSEDED=2)
    both.add(tally(accepted=9, SUPERSEDED=1))
    assert both == tally(20, 17, 20, 20, SUPERSEDED=3)


def test_a_driver_who_is_not_where_it_said_is_a_fault() -> None:
    said = {"a": (1, 2), "b": (3, 4)}
    assert position_faults("load", said, {**said, "c": (0, 0)}) == []
    assert "1 of 2 drivers have no position, b for one" in position_faults("load", said, {"a": (1, 2)})[0]
    assert "1 of 2 drivers are not where they last said, b" in position_faults("load", said, {"a": (1, 2), "b": (3, 5)})[0]


def test_the_nearest_are_in_the_order_of_distance_and_id() -> None:
    assert nearest(np.array([5, 1, 5, 1]), IDS, 3) == ["b", "d", "a"]
    assert nearest(np.array([5, 1, 5, 1]), IDS, 9) == ["b", "d", "a", "c"]


@pytest.mark.parametrize("found", [["b", "a", "d"], ["a", "b"], ["b", "a"], ["a", "b", "c"], ["a", "b", "d", "c"]])
def test_an_answer_that_is_not_the_nearest_is_a_fault(found: list[str]) -> None:
    distance_mm = np.array([10, 20, 40, 30])
    assert answer_faults("ask", ["a", "b", "d"], 3, distance_mm, IDS, 100) == []
    assert answer_faults("ask", found, 3, distance_mm, IDS, 100) != []


def test_whoever_is_beyond_the_radius_need_not_be_found() -> None:
    assert answer_faults("ask", ["a", "b"], 3, np.array([10, 20, 40, 30]), IDS, 25) == []
    assert answer_faults("ask", ["a", "b", "d"], 3, np.array([10, 20, 40, 30]), IDS, 25) != []


def test_a_baseline_may_differ_at_the_edge_by_the_rounding_of_geo_sets_and_no_more() -> None:
    distance_m = {"a": 10.0, "b": 20.0, "c": 20.0 + 0.9 * GEOHASH_M, "d": 20.0 + 1.1 * GEOHASH_M}
    assert baseline_faults("ask", ["a", "b"], ["b", "a"], distance_m) == []
    assert baseline_faults("ask", ["a", "b"], ["a", "c"], distance_m) == []
    assert baseline_faults("ask", ["a", "b"], ["a", "d"], distance_m) != []
    assert baseline_faults("ask", ["a", "b"], ["b", "c"], distance_m) != []
    assert baseline_faults("ask", ["a", "b"], ["a"], distance_m) != []
    assert baseline_faults("ask", ["a", "b"], ["a", "a"], distance_m) != []


GOOD = Found(("a", "b"), (95.0, 230.0), (1_000, 29_999), complete=True)
HOMES_M = np.array([900.0, 200.0, 100.0, 500.0])


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (replace(GOOD, complete=False), "not complete"),
        (Found(("a",), (95.0,), (1_000,), complete=True), "1 drivers found instead of 2"),
        (replace(GOOD, driver_ids=("a", "a")), "found twice"),
        (replace(GOOD, age_ms=(1_000, 30_000)), "silent for 30,000 ms"),
        (replace(GOOD, distance_m=(230.0, 95.0)), "not the nearest first"),
        (replace(GOOD, distance_m=(95.0, 241.0)), "41 m from where they can be"),
    ],
)
def test_an_answer_that_cannot_be_true_wherever_drivers_move_is_a_fault(found: Found, complaint: str) -> None:
    assert moving_faults("ask", GOOD, 2, 30_000, HOMES_M, 40.0) == []
    assert any(complaint in fault for fault in moving_faults("ask", found, 2, 30_000, HOMES_M, 40.0))
