"""Does the driver still come? Only what location has answered, whole and without a pause, counts against a driver."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel.geo import Place
from hexhail.kernel.ids import DriverId, RideId
from matching.model import (
    DeadlinePassed,
    DriverArrived,
    DriverSilent,
    FactKind,
    NoProgress,
    OfferAccepted,
    OfferState,
    ReleaseReason,
    RideStarted,
    RideState,
)
from matching.offers import OfferParams, decide
from matching.progress import Check, ProgressParams, Sight, Verdict, judge
from tests.matching.rides import NOW_MS, offered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matching.model import Ride

PARAMS = ProgressParams(progress_check_s=20.0, checks_without_progress=3)
FIRST = Check(RideId("gridport-r"), DriverId("d1"), RideState.ACCEPTED, 3, Place(40.5, -74.0), 0, None)


def looks(sights: Iterable[Sight], first: Check = FIRST, step_ms: int = 20_000) -> list[Verdict]:
    """What each of these looks ends in, 20 s apart; ages of positions are counted from the look."""
    check, verdicts = first, []
    for number, sight in enumerate(sights):
        now_ms = NOW_MS + number * step_ms
        heard_at_ms = None if sight.heard_at_ms is None else now_ms + sight.heard_at_ms
        watch, verdict = judge(check, replace(sight, heard_at_ms=heard_at_ms), now_ms, PARAMS)
        check = replace(check, watch=watch)
        verdicts.append(verdict)
    return verdicts


def seen(*times_left_s: float | None) -> list[Sight]:
    return [Sight("epoch", -500, time_left_s) for time_left_s in times_left_s]


def silent(count: int, epoch: str = "epoch") -> list[Sight]:
    return [Sight(epoch, None)] * count


def test_who_comes_nearer_is_fine() -> None:
    assert set(looks(seen(400, 385, 370, 350, 340, 320, 300))) == {Verdict.FINE}


def test_who_does_not_for_three_looks_in_a_row_has_lost_the_ride() -> None:
    assert looks(seen(400, 399, 400, 410)) == [Verdict.FINE] * 3 + [Verdict.NO_PROGRESS]


def test_one_look_of_progress_begins_the_count_anew() -> None:
    assert set(looks(seen(400, 400, 400, 380, 380, 380))) == {Verdict.FINE}


def test_a_tenth_of_the_time_that_passed_is_enough() -> None:
    assert set(looks(seen(400, 398, 396, 394, 392))) == {Verdict.FINE}
    assert looks(seen(400, 398.1, 396.2, 394.3))[-1] is Verdict.NO_PROGRESS


def test_nothing_is_asked_of_who_is_there_already() -> None:
    assert set(looks(seen(60, 60, 60, 60, 60, 60))) == {Verdict.FINE}


def test_a_time_that_is_not_known_is_no_look() -> None:
    """Nor does it spare anybody: the next one compares with the last known, over all the time between."""
    assert set(looks(seen(400, None, None, None, None))) == {Verdict.FINE}
    assert looks(seen(400, None, 400, None, 400, 400))[-1] is Verdict.NO_PROGRESS


def test_a_position_that_is_no_newer_than_the_last_one_says_nothing() -> None:
    old = [replace(sight, heard_at_ms=-20_000 * number) for number, sight in enumerate(seen(*[400] * 6))]
    assert set(looks(old)) == {Verdict.FINE}


def test_there_is_no_hurry_while_a_scheduled_pickup_can_still_be_made() -> None:
    early = replace(FIRST, pickup_at_ms=NOW_MS + 600_000)
    assert set(looks(seen(*[400] * 10), early)) == {Verdict.FINE}
    assert looks(seen(*[400] * 14), early)[-1] is Verdict.NO_PROGRESS


def test_a_driver_who_waits_or_drives_a_rider_need_not_come_nearer_to_the_pickup() -> None:
    for state in (RideState.ARRIVED, RideState.IN_PROGRESS):
        assert set(looks(seen(*[400] * 8), replace(FIRST, state=state))) == {Verdict.FINE}


@pytest.mark.parametrize(
    ("state", "limit_s"), [(RideState.ACCEPTED, 120), (RideState.ARRIVED, 120), (RideState.IN_PROGRESS, 600)]
)
def test_silence_counts_from_the_first_look_that_found_nobody(state: RideState, limit_s: int) -> None:
    verdicts = looks(silent(limit_s // 20 + 1), replace(FIRST, state=state))
    assert verdicts == [Verdict.FINE] * (limit_s // 20) + [Verdict.DRIVER_SILENT]


def test_one_sign_of_life_ends_a_silence() -> None:
    assert set(looks([*silent(6), *seen(None), *silent(6)])) == {Verdict.FINE}


def test_a_pause_between_looks_is_not_the_drivers_silence() -> None:
    """Location did not answer for a minute and more: nobody knows who was there meanwhile."""
    assert set(looks(silent(20), step_ms=60_001)) == {Verdict.FINE}
    assert looks(silent(20), step_ms=60_000)[2] is Verdict.DRIVER_SILENT


def test_positions_that_location_lost_are_no_silence() -> None:
    assert set(looks([*silent(6), *silent(6, "next epoch")])) == {Verdict.FINE}


def test_who_moved_the_ride_is_alive() -> None:
    watch, _ = judge(FIRST, Sight("epoch", None), NOW_MS, PARAMS)
    moved = replace(FIRST, version=FIRST.version + 1, watch=watch)
    assert judge(moved, Sight("epoch", None), NOW_MS + 50_000, PARAMS)[0].silent_since_ms == NOW_MS + 50_000


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two"]), st.booleans(), st.none() | st.floats(0, 5_000), st.integers(0, 200_000)),
        max_size=40,
    )
)
def test_nobody_is_silent_who_was_heard_within_the_limit(history: list[tuple[str, bool, float | None, int]]) -> None:
    check, now_ms, heard_at_ms = FIRST, NOW_MS, NOW_MS
    for epoch, heard, time_left_s, step_ms in history:
        now_ms += step_ms
        watch, verdict = judge(check, Sight(epoch, now_ms if heard else None, time_left_s), now_ms, PARAMS)
        if heard:
            heard_at_ms = now_ms
        if verdict is Verdict.DRIVER_SILENT:
            assert now_ms - heard_at_ms >= PARAMS.pickup_silent_limit_s * 1000
        if verdict is Verdict.NO_PROGRESS:
            assert heard
        check = replace(check, watch=watch)


OFFERS = OfferParams()
ACCEPTED = decide(offered("d1", "d2"), OfferAccepted("o-d1"), NOW_MS, OFFERS).ride
ARRIVED = decide(ACCEPTED, DriverArrived("d1"), NOW_MS, OFFERS).ride
RIDING = decide(ARRIVED, RideStarted("d1"), NOW_MS, OFFERS).ride


@pytest.mark.parametrize(
    ("ride", "kind", "reason"),
    [
        (ACCEPTED, NoProgress, ReleaseReason.NO_PROGRESS),
        (ACCEPTED, DriverSilent, ReleaseReason.DRIVER_SILENT),
        (ARRIVED, DriverSilent, ReleaseReason.DRIVER_SILENT),
    ],
)
def test_before_the_ride_has_begun_it_goes_to_another_driver(
    ride: Ride, kind: type[NoProgress | DriverSilent], reason: ReleaseReason
) -> None:
    decision = decide(ride, kind("d1", ride.version), NOW_MS + 60_000, OFFERS)
    assert decision.ride.state is RideState.SEARCHING
    assert decision.ride.assignment is None
    assert decision.ride.search_began_at_ms == decision.ride.next_deadline_ms == NOW_MS + 60_000
    assert decision.ride.offer("o-d1").state is OfferState.DECLINED
    assert [(f.kind, f.driver_id, f.release_reason) for f in decision.facts] == [(FactKind.ASSIGNMENT_ENDED, "d1", reason)]


def test_after_it_has_begun_it_ends() -> None:
    decision = decide(RIDING, DriverSilent("d1", RIDING.version), NOW_MS, OFFERS)
    assert decision.ride.state is RideState.ENDED_BY_OPERATOR
    assert [(f.kind, f.release_reason, f.text) for f in decision.facts] == [
        (FactKind.ASSIGNMENT_ENDED, ReleaseReason.DRIVER_SILENT, ""),
        (FactKind.RIDE_ENDED, None, "DRIVER_SILENT"),
    ]


@pytest.mark.parametrize("kind", [NoProgress, DriverSilent])
def test_what_was_seen_of_an_earlier_version_changes_nothing(kind: type[NoProgress | DriverSilent]) -> None:
    for ride in (ARRIVED, RIDING, decide(ACCEPTED, DeadlinePassed(), NOW_MS + 4_000_000, OFFERS).ride):
        assert decide(ride, kind("d1", ACCEPTED.version), NOW_MS, OFFERS).ride is ride


@pytest.mark.parametrize(
    ("name", "value"), [("progress_check_s", 0.0), ("min_progress", 1.0), ("checks_without_progress", 0), ("near_s", -1.0)]
)
def test_parameters_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ProgressParams(**{name: value})  # type: ignore[arg-type]
