"""Overlaps of accept-to-release intervals: one driver in two rides, one ride in two cars."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hexhail.client import AssignmentView, RideState, RideView
from simulator.witness import Interval, Witness, double_assignments


def interval(ride: str, driver: str, begin_ms: int, end_ms: int | None) -> Interval:
    return Interval(begin_ms, ride, driver, end_ms)


intervals = st.lists(
    st.builds(
        lambda begin, length, ride, driver: Interval(begin, f"r{ride}", f"d{driver}", None if length is None else begin + length),
        st.integers(0, 20),
        st.none() | st.integers(0, 10),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=12,
)


def test_nothing_and_one_ride_are_no_double_assignment() -> None:
    assert double_assignments([]) == 0
    assert double_assignments([interval("r1", "d1", 0, None)]) == 0


def test_a_driver_with_two_rides_at_once_is_one() -> None:
    assert double_assignments([interval("r1", "d1", 0, 10), interval("r2", "d1", 9, 20)]) == 1


def test_a_driver_with_one_ride_after_another_is_none_even_in_the_same_millisecond() -> None:
    assert double_assignments([interval("r1", "d1", 0, 10), interval("r2", "d1", 10, 20)]) == 0


def test_a_ride_that_was_never_released_overlaps_all_that_follow() -> None:
    assert double_assignments([interval("r1", "d1", 0, None), interval("r2", "d1", 5, 6), interval("r3", "d1", 90, 91)]) == 2


def test_fifty_winners_of_one_ride_are_forty_nine() -> None:
    assert double_assignments([interval("r1", f"d{i}", 7, None) for i in range(50)]) == 49


def test_a_ride_given_back_and_taken_by_another_is_none() -> None:
    assert double_assignments([interval("r1", "d1", 0, 5), interval("r1", "d2", 6, 20)]) == 0


def test_the_same_acceptance_told_twice_is_one_and_its_release_is_kept() -> None:
    twice = [interval("r1", "d1", 0, None), interval("r1", "d1", 0, 10), interval("r1", "d1", 0, None)]
    assert double_assignments([*twice, interval("r2", "d1", 10, None)]) == 0


@given(intervals, st.randoms())
def test_the_order_of_telling_does_not_matter(found: list[Interval], chance: object) -> None:
    shuffled = list(found)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    assert double_assignments(shuffled) == double_assignments(found)


@given(intervals)
def test_it_is_zero_exactly_where_no_two_intervals_conflict(found: list[Interval]) -> None:
    kept = {
        (i.begin_ms, i.ride_id, i.driver_id): i
        for i in sorted(found, key=lambda i: -(math.inf if i.end_ms is None else i.end_ms))
    }
    ordered = [kept[key] for key in sorted(kept)]
    conflict = any(
        (a.end_ms is None or a.end_ms > b.begin_ms)
        and (a.driver_id == b.driver_id or (a.ride_id == b.ride_id and a.driver_id != b.driver_id))
        for n, b in enumerate(ordered)
        for a in ordered[:n]
    )
    assert (double_assignments(found) > 0) == conflict


@given(st.lists(st.integers(0, 100), min_size=2, max_size=10))
def test_rides_end_to_end_are_never_doubled(times: list[int]) -> None:
    ordered = sorted(times)
    assert double_assignments(interval(f"r{n}", "d1", a, b) for n, (a, b) in enumerate(pairwise(ordered))) == 0


def ride(state: RideState, version: int, driver: str = "", accepted_ms: int = 0, at_ms: int = 0) -> RideView:
    assignment = AssignmentView(driver, accepted_ms, 60, 0, 0, 0) if driver else None
    return RideView("r1", "p1", "economy", (), state, version, 0, "USD", 1000, 0, at_ms, assignment)


def test_from_accept_to_completion_is_one_interval_whoever_was_told() -> None:
    witness = Witness()
    witness.accepted(ride(RideState.ACCEPTED, 3, "d1", 100, 100), "d1")
    witness.told(ride(RideState.ACCEPTED, 3, "d1", 100, 100))
    witness.told(ride(RideState.COMPLETED, 6, "d1", 100, 900))
    assert witness.intervals() == [interval("r1", "d1", 100, 900)]


def test_a_late_word_of_an_older_version_releases_nobody() -> None:
    witness = Witness()
    witness.accepted(ride(RideState.ACCEPTED, 3, "d1", 100, 100), "d1")
    witness.told(ride(RideState.OFFERED, 2, at_ms=90))
    assert witness.intervals() == [interval("r1", "d1", 100, None)]


def test_a_ride_that_is_searched_again_has_released_its_driver() -> None:
    witness = Witness()
    witness.accepted(ride(RideState.ACCEPTED, 3, "d1", 100, 100), "d1")
    witness.told(ride(RideState.SEARCHING, 4, at_ms=200))
    witness.accepted(ride(RideState.ACCEPTED, 6, "d2", 300, 300), "d2")
    assert witness.intervals() == [interval("r1", "d1", 100, 200), interval("r1", "d2", 300, None)]
    assert double_assignments(witness.intervals()) == 0


def test_a_driver_named_in_anothers_place_without_a_release_is_a_second_winner() -> None:
    witness = Witness()
    witness.accepted(ride(RideState.ACCEPTED, 3, "d1", 100, 100), "d1")
    witness.accepted(ride(RideState.ACCEPTED, 4, "d2", 101, 101), "d2")
    witness.told(ride(RideState.ACCEPTED, 4, "d2", 101, 101))
    assert double_assignments(witness.intervals()) == 1


def test_giving_a_ride_back_releases_its_driver_alone() -> None:
    witness = Witness()
    witness.accepted(ride(RideState.ACCEPTED, 3, "d1", 100, 100), "d1")
    witness.gave_back("r1", "d1", 150)
    witness.gave_back("r9", "d9", 160)
    assert witness.intervals() == [interval("r1", "d1", 100, 150)]
