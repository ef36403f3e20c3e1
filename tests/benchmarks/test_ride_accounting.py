"""What came of a load of rides: what is counted as served, double or lost."""

from __future__ import annotations

import pytest

from benchmarks.ride_accounting import (
    Drive,
    RiderSeen,
    assignment_faults,
    completed_per_s,
    latencies,
    lost_rides,
    served_share,
)

EVENTS = frozenset(
    ("bench-1", kind) for kind in ("RIDE_REQUESTED", "ASSIGNMENT_BEGAN", "DRIVER_ARRIVED", "RIDE_STARTED", "RIDE_COMPLETED")
)


def seen(due_s: float = 100.0, *, completed_s: float | None = 110.0) -> RiderSeen:
    told = {"OFFERED": 100.5, "ACCEPTED": 101.5}
    if completed_s is not None:
        told["COMPLETED"] = completed_s
    return RiderSeen(due_s, due_s + 0.01, due_s + 0.1, due_s + 0.2, "bench-1", "bench.d1", told)


def drive(driver_id: str = "bench.d1", ride_id: str = "bench-1", begin_ms: int = 1_000, end_ms: int | None = 9_000) -> Drive:
    return Drive(driver_id, ride_id, 0.9, begin_ms, end_ms, ["ACCEPTED", "ARRIVED", "IN_PROGRESS", "COMPLETED"])


def test_waiting_is_counted_from_the_call_and_thinking_is_not_the_services() -> None:
    took = latencies([seen()], {"bench-1": 100.25}, {"bench-1": drive()}, 60_000)
    assert took.first_offer_ms.tolist() == pytest.approx([150])
    assert took.match_ms.tolist() == pytest.approx([500])
    assert took.late_ms.tolist() == pytest.approx([10])


def test_who_is_never_served_waits_longest_of_all() -> None:
    """A service that refuses most of its riders is not the faster for it."""
    refused = RiderSeen(100.0, failed="UNAVAILABLE")
    took = latencies([seen(), refused, refused], {"bench-1": 100.25}, {"bench-1": drive()}, 60_000)
    assert took.first_offer_ms.tolist() == pytest.approx([150, 60_000, 60_000])
    assert took.match_ms.tolist() == pytest.approx([500, 60_000, 60_000])


def test_a_ride_is_served_if_it_is_completed_in_time_counted_from_when_it_was_due() -> None:
    rides = [seen(), seen(completed_s=112.1), seen(completed_s=None), RiderSeen(100.0, failed="UNAVAILABLE")]
    assert served_share(rides, within_s=12.0) == 0.25
    assert completed_per_s(rides, within_s=12.2, seconds=4.0) == 0.5
    assert served_share([], within_s=1.0) == 0.0


def test_two_rides_of_a_driver_at_once_are_seen_by_either_source() -> None:
    apart = [drive(), drive(ride_id="bench-2", begin_ms=9_000, end_ms=12_000)]
    assert assignment_faults(apart, []) == 0
    assert assignment_faults([drive(), drive(ride_id="bench-2", begin_ms=8_999)], []) == 1
    assert assignment_faults(apart, [("bench.d1", "bench-1", 1_000, None), ("bench.d2", "bench-1", 2_000, 3_000)]) == 1


def test_what_was_told_must_be_kept() -> None:
    rides = {"bench-1": ("COMPLETED", "bench.d1")}
    assert lost_rides([seen()], [drive()], rides, EVENTS) == []
    without = EVENTS - {("bench-1", "DRIVER_ARRIVED")}
    assert lost_rides([seen()], [drive()], rides, without) == ["bench-1: bench.d1 was told ARRIVED, and the log does not have it"]
    assert lost_rides([seen()], [], {}, EVENTS) == ["bench-1: requested, and not there"]
    other = {"bench-1": ("COMPLETED", "bench.d2")}
    assert lost_rides([], [drive()], other, EVENTS) == ["bench-1: bench.d1 was told that it is its own, and it is bench.d2's"]
    assert lost_rides([], [], {"bench-1": ("ARRIVED", "bench.d1")}, EVENTS) == ["bench-1: is ARRIVED in the end"]
