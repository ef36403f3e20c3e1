"""A driver's record: what counts, how long it counts, and since when the driver is free."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.model import (
    DeadlinePassed,
    Decision,
    DriverCancelled,
    DriverSilent,
    EndedByOperator,
    NoProgress,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OfferState,
    OfferWithdrawn,
    ReassignedByOperator,
    RiderCancelled,
)
from matching.offers import OfferParams, decide
from matching.records import Answer, Record, RecordParams, acceptance_milli, after, answers, idle_s
from tests.matching.rides import NOW_MS, offered

PARAMS = RecordParams(half_life_offers=20.0)
PHASE_OVER_MS = NOW_MS + 5_000


def rate(record: Record) -> int:
    return int(acceptance_milli(np.array([record.shown_milli]), np.array([record.accepted_milli]))[0])


def run(*given: Answer) -> Record:
    record = Record()
    for answer in given:
        record = after(record, answer, PARAMS)
    return record


def test_an_offer_that_was_seen_counts_however_it_ended_and_one_that_was_not_does_not() -> None:
    ride = offered("looks", "deaf")
    ride = decide(ride, OfferShown("o-looks"), NOW_MS, OfferParams()).ride
    assert answers(ride, decide(ride, DeadlinePassed(), PHASE_OVER_MS, OfferParams())) == [("looks", Answer.NOT_TAKEN)]


def test_an_offer_that_another_driver_or_the_rider_took_away_counts_for_nobody() -> None:
    ride = offered("quick", "slow")
    ride = decide(ride, OfferShown("o-slow"), NOW_MS, OfferParams()).ride
    assert answers(ride, decide(ride, OfferAccepted("o-quick"), NOW_MS, OfferParams())) == [("quick", Answer.ACCEPTED)]
    assert answers(ride, decide(ride, RiderCancelled(), NOW_MS, OfferParams())) == []


def test_a_ride_given_back_was_not_accepted() -> None:
    ride = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, OfferParams()).ride
    assert answers(ride, decide(ride, DriverCancelled("d1"), NOW_MS, OfferParams())) == [("d1", Answer.GIVEN_BACK)]
    assert run(Answer.ACCEPTED, Answer.GIVEN_BACK) == run(Answer.NOT_TAKEN)


def test_who_does_not_drive_to_the_pickup_has_not_accepted_and_whose_phone_died_has() -> None:
    ride = decide(offered("d1"), OfferAccepted("o-d1"), NOW_MS, OfferParams()).ride
    stuck, silent = NoProgress("d1", ride.version), DriverSilent("d1", ride.version)
    assert answers(ride, decide(ride, stuck, NOW_MS, OfferParams())) == [("d1", Answer.GIVEN_BACK)]
    assert answers(ride, decide(ride, silent, NOW_MS, OfferParams())) == []


def test_what_an_operator_does_is_not_the_drivers_doing() -> None:
    ride = decide(offered("d1"), OfferShown("o-d1"), NOW_MS, OfferParams()).ride
    assert answers(ride, decide(ride, OfferWithdrawn("o-d1"), NOW_MS, OfferParams())) == []
    assert answers(ride, decide(ride, EndedByOperator("test"), NOW_MS, OfferParams())) == []
    ride = decide(ride, OfferAccepted("o-d1"), NOW_MS, OfferParams()).ride
    assert answers(ride, decide(ride, ReassignedByOperator("test"), NOW_MS, OfferParams())) == []


def test_whoever_declines_has_seen_the_offer() -> None:
    ride = offered("d1")
    assert answers(ride, decide(ride, OfferDeclined("o-d1"), NOW_MS, OfferParams())) == [("d1", Answer.NOT_TAKEN)]


def test_what_has_not_changed_does_not_count_again() -> None:
    ride = offered("d1")
    over = replace(ride, offers=(replace(ride.offers[0], state=OfferState.DECLINED, shown_at_ms=NOW_MS),))
    assert answers(over, Decision(replace(over, notes="at the side door"))) == []


def test_after_a_half_life_an_answer_weighs_half() -> None:
    refused = run(Answer.NOT_TAKEN, *[Answer.ACCEPTED] * 20)
    assert refused.shown_milli - refused.accepted_milli == pytest.approx(500, abs=10)


def test_a_bad_month_is_forgotten_by_driving_and_not_by_staying_away() -> None:
    bad = run(*[Answer.NOT_TAKEN] * 100)
    better = run(*[Answer.NOT_TAKEN] * 100, *[Answer.ACCEPTED] * 100)
    assert rate(bad) < 300
    assert rate(better) > 930


def test_of_whom_nothing_is_known_the_best_is_thought() -> None:
    assert rate(Record()) == 900


@given(st.lists(st.sampled_from([Answer.ACCEPTED, Answer.NOT_TAKEN]), max_size=60), st.floats(0.5, 500.0))
def test_a_rate_is_a_share_that_rises_with_what_is_accepted_and_falls_with_what_is_not(
    given: list[Answer], half_life: float
) -> None:
    params = RecordParams(half_life_offers=half_life)
    record = Record()
    for answer in given:
        assert 0 <= record.accepted_milli <= record.shown_milli
        assert rate(after(record, Answer.NOT_TAKEN, params)) <= rate(after(record, Answer.ACCEPTED, params))
        assert rate(after(record, Answer.NOT_TAKEN, params)) <= 1_000
        record = after(record, answer, params)
    assert 0 <= rate(record) <= 1_000


def test_whoever_is_free_has_waited_since_then_and_nobody_else_has() -> None:
    since = np.array([NOW_MS - 90_000, NOW_MS - 90_000, NOW_MS + 500])
    assert idle_s(since, np.array([True, False, True]), NOW_MS).tolist() == [90.0, 0.0, 0.0]


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("nan")])
def test_a_record_without_a_half_life_is_refused(half_life: float) -> None:
    with pytest.raises(ValueError, match="half_life_offers"):
        RecordParams(half_life_offers=half_life)
