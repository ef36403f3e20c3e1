"""The summary adds up, says nothing of what it does not know, and holds every figure of the run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.client import AssignmentView, CallCounts, FixAckView, RideState, RideView, SurgeView
from hexhail.kernel.geo import Place
from simulator.ledger import Ledger, Outcome, RideRecord
from simulator.params import LiveParams, SimulatorParams
from simulator.summary import Rides, Summary, errors_s, percentiles, rides_now, summary_of

PARAMS = LiveParams(city="gridport", drivers=10)


def record(sent_s: float = 10.0) -> RideRecord:
    return RideRecord("r1", Place(40.5, -74.0), sent_s)


def view(state: RideState, driver: str = "d1") -> RideView:
    assignment = AssignmentView(driver, 1_000, 60, 91_000, 0, 0) if driver else None
    return RideView("r1", "p1", "economy", (), state, 3, 0, "USD", 1000, 0, 0, assignment)


def summary(ledger: Ledger) -> Summary:
    return summary_of(rides_now(ledger), ledger, CallCounts(), PARAMS, cut_off=0, seconds=1.0, rows_dropped={"malformed": 2})


@given(
    st.lists(
        st.tuples(st.sampled_from([None, *RideState]), st.booleans(), st.booleans()),
        max_size=40,
    )
)
def test_requests_are_matched_or_cancelled_or_expired_or_open_whatever_happened(
    told: list[tuple[RideState | None, bool, bool]],
) -> None:
    ledger = Ledger()
    for state, named, failed in told:
        one = record()
        if state is not None:
            one.told(view(state, "d1" if named else ""), 11.0)
        one.failed = "RIDER_BUSY" if failed else ""
        ledger.rides.append(one)
    rides = rides_now(ledger)
    assert rides.requests == rides.matched + rides.cancelled + rides.expired + rides.open_at_end
    assert rides.requests + sum(rides.requests_failed.values()) == len(told)


def test_figures_that_do_not_add_up_are_refused() -> None:
    rides = rides_now(Ledger())
    with pytest.raises(ValueError, match="requests is not"):
        replace(rides, requests=1)


def test_a_ride_is_matched_once_a_driver_was_named_even_if_it_is_cancelled_later() -> None:
    one = record()
    one.told(view(RideState.ACCEPTED), 12.5)
    one.told(view(RideState.CANCELLED_BY_RIDER, ""), 20.0)
    assert one.outcome is Outcome.MATCHED
    assert one.named_s == 12.5


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (None, Outcome.OPEN),
        (RideState.OFFERED, Outcome.OPEN),
        (RideState.EXPIRED, Outcome.EXPIRED),
        (RideState.CANCELLED_BY_RIDER, Outcome.CANCELLED),
        (RideState.CANCELLED_BY_SYSTEM, Outcome.CANCELLED),
    ],
)
def test_without_a_driver_the_state_decides(state: RideState | None, outcome: Outcome) -> None:
    one = record()
    one.state = state
    assert one.outcome is outcome


def test_waits_are_measured_from_sending_the_request() -> None:
    ledger = Ledger()
    ledger.rides.append(one := record(10.0))
    one.told(view(RideState.ACCEPTED), 11.5)
    one.told(view(RideState.ARRIVED), 101.0)
    one.told(view(RideState.IN_PROGRESS), 105.0)
    rides = rides_now(ledger)
    assert rides.match_ms == {"p50": 1500.0, "p95": 1500.0, "p99": 1500.0}
    assert rides.pickup_s == {"p50": 91.0, "p95": 91.0}


def test_promises_are_held_against_what_the_drives_take() -> None:
    ledger = Ledger()
    ledger.arrivals.held(60, 90.0)
    ledger.trips.held(260, 240.0)
    ledger.trips.held(60, 70.0)
    rides = rides_now(ledger)
    sizes = {"p50": 30.0, "p90": 30.0, "p95": 30.0}
    assert rides.eta_error_s == {"n": 1, "mean": 30.0, **sizes, "abs_p50": 30.0, "abs_p95": 30.0}
    assert rides.trip_error_s == {"n": 2, "mean": -5.0, "p50": 15.0, "p90": 19.0, "p95": 19.5}


def test_promises_that_were_kept_late_and_early_do_not_make_up_for_each_other_but_in_the_mean() -> None:
    errors = errors_s(np.array([-30.0, -10.0, 10.0, 50.0]))
    assert errors == {"n": 4, "mean": 5.0, "p50": 20.0, "p90": 44.0, "p95": 47.0}
    assert errors_s(np.empty(0)) == {"n": 0, "mean": None, "p50": None, "p90": None, "p95": None}


def test_percentiles_of_nothing_are_unknown() -> None:
    assert percentiles(np.empty(0), (50, 95, 99)) == {"p50": None, "p95": None, "p99": None}
    assert summary(Ledger()).as_json()["match_ms"] == {"p50": None, "p95": None, "p99": None}


def test_the_json_is_flat_and_has_every_figure_the_readers_ask_for() -> None:
    values = json.loads(json.dumps(summary(Ledger()).as_json()))
    asked = {
        "requests", "matched", "cancelled", "expired", "open_at_end", "completed", "match_ms", "pickup_s", "fixes_sent",
        "fixes_accepted", "fixes_dropped", "surge_max", "cells_surging", "surge_timeline", "double_assignments", "refusals",
        "rpc_errors", "rows_dropped", "parameters",
    }  # fmt: skip
    assert asked <= set(values)
    assert values["rows_dropped"] == {"malformed": 2}
    assert values["parameters"]["rider_patience_s"] == [30.0, 60.0]
    assert values["parameters"]["think_s"] == [0.5, 3.0]
    assert (values["parameters"]["report_interval_s"], values["parameters"]["decline_share"]) == (4.0, 0.1)


def test_fixes_are_counted_by_what_became_of_them() -> None:
    ledger = Ledger()
    ledger.fixes.sent = 5
    ledger.fixes.told(FixAckView(1, 2, {"NOT_NEWER": 1}, 4000))
    ledger.fixes.told(FixAckView(2, 1, {"NOT_NEWER": 1}, 4000))
    values = summary(ledger).as_json()
    assert (values["fixes_sent"], values["fixes_accepted"], values["fixes_dropped"]) == (5, 3, {"NOT_NEWER": 2})


def surge(*multipliers: int) -> SurgeView:
    return SurgeView(
        snapshot=True,
        version=1,
        cells=np.arange(len(multipliers), dtype=np.uint64),
        multiplier_milli=np.array(multipliers, dtype=np.int64),
        as_of_ms=0,
        stale=False,
    )


def test_surge_is_seen_to_rise_and_to_fall() -> None:
    ledger = Ledger()
    for at_s, view_ in enumerate((surge(), surge(1200, 2500), surge(1200, 2500), surge(1000))):
        ledger.surge.told(view_, float(at_s))
    values = summary(ledger).as_json()
    assert (values["surge_max"], values["cells_surging"]) == (2.5, 2)
    assert values["surge_timeline"] == ((0.0, 1000, 0), (1.0, 2500, 2), (3.0, 1000, 0))


def test_surge_that_was_never_read_is_unknown() -> None:
    assert summary(Ledger()).as_json()["surge_max"] is None


def test_the_outbox_can_only_add() -> None:
    assert summary(Ledger()).with_outbox(3).double_assignments == 3
    assert summary(Ledger()).with_outbox(3).with_outbox(0).double_assignments == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"drivers": 0},
        {"minutes": 0.0},
        {"sample": 0.0},
        {"decline_share": 1.5},
        {"rider_patience_s": (10.0, 60.0)},
        {"think_s": (3.0, 0.5)},
        {"report_tick_s": 9.0},
        {"seed": -1},
    ],
)
def test_parameters_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PARAMS, **wrong)


def test_a_citys_simulator_section_is_checked() -> None:
    with pytest.raises(ValueError, match="start is"):
        SimulatorParams(start="noon")
    with pytest.raises(ValueError, match="requests_file"):
        SimulatorParams(source="rides")
    with pytest.raises(ValueError, match="source"):
        SimulatorParams(source="dreams")


def test_rides_is_a_value() -> None:
    assert rides_now(Ledger()) == Rides(
        0, 0, 0, 0, 0, 0, {}, {"p50": None, "p95": None, "p99": None}, {"p50": None, "p95": None},
        {"n": 0, "mean": None, "p50": None, "p90": None, "p95": None, "abs_p50": None, "abs_p95": None},
            {"n": 0, "mean": None, "p50": None, "p90": None, "p95": None},
    )  # fmt: skip
