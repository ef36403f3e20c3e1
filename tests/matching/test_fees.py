"""Which fee is due, and when is none? Amounts are pricing's matter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from matching.fees import FeeParams
from matching.model import (
    DeadlinePassed,
    DriverArrived,
    DriverCancelled,
    FactKind,
    FeeKind,
    OfferAccepted,
    RiderCancelled,
    RideState,
)
from matching.offers import OfferParams, decide
from tests.matching.rides import NOW_MS, offered

PARAMS = OfferParams(fees=FeeParams(cancel_grace_s=120.0, driver_late_s=300.0))
ETA_S = 60
ACCEPTED = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, PARAMS).ride


@pytest.mark.parametrize(
    ("after_s", "fee"),
    [(0, None), (120, None), (121, FeeKind.LATE_CANCELLATION), (ETA_S + 300, FeeKind.LATE_CANCELLATION), (ETA_S + 301, None)],
    ids=["at once", "in the grace time", "after it", "the driver is a little late", "the driver is too late"],
)
def test_cancelling_costs_once_the_grace_time_is_over_unless_the_driver_is_late(after_s: int, fee: FeeKind | None) -> None:
    decision = decide(ACCEPTED, RiderCancelled(), NOW_MS + after_s * 1000, PARAMS)
    assert [(f.driver_id, f.fee) for f in decision.facts if f.kind is FactKind.FEE_DUE] == ([("d1", fee)] if fee else [])


def test_a_driver_who_waits_is_not_late_any_more() -> None:
    arrived = decide(ACCEPTED, DriverArrived("d1"), NOW_MS + 400_000, PARAMS).ride
    decision = decide(arrived, RiderCancelled(), NOW_MS + 500_000, PARAMS)
    assert FeeKind.LATE_CANCELLATION in [fact.fee for fact in decision.facts]


def test_a_driver_is_late_only_after_the_pickup_time_of_a_scheduled_ride() -> None:
    ride = replace(ACCEPTED, pickup_at_ms=NOW_MS + 900_000)
    assert FeeKind.LATE_CANCELLATION in [f.fee for f in decide(ride, RiderCancelled(), NOW_MS + 1_200_000, PARAMS).facts]
    assert [f.fee for f in decide(ride, RiderCancelled(), NOW_MS + 1_200_001, PARAMS).facts if f.fee] == []


def test_who_does_not_come_to_the_car_owes_a_no_show_fee() -> None:
    arrived = decide(ACCEPTED, DriverArrived("d1"), NOW_MS, PARAMS).ride
    decision = decide(arrived, DeadlinePassed(), NOW_MS + 600_000, PARAMS)
    assert decision.ride.state is RideState.NO_SHOW
    assert [(f.driver_id, f.fee) for f in decision.facts if f.kind is FactKind.FEE_DUE] == [("d1", FeeKind.NO_SHOW)]


def test_nothing_is_due_without_a_driver_or_for_what_a_driver_does() -> None:
    for ride, event in ((offered("d1"), RiderCancelled()), (ACCEPTED, DriverCancelled("d1")), (ACCEPTED, DeadlinePassed())):
        decision = decide(ride, event, NOW_MS + 4_000_000, PARAMS)
        assert decision.ride is not ride
        assert [fact for fact in decision.facts if fact.kind is FactKind.FEE_DUE] == []


def test_times_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="cancel_grace_s"):
        FeeParams(cancel_grace_s=-1.0)
