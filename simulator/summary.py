"""What came of a live run, in one value that becomes one JSON object."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hexhail.client import RideState
from simulator.ledger import Outcome
from simulator.witness import double_assignments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.client import CallCounts
    from hexhail.kernel.units import Floats
    from simulator.ledger import Ledger
    from simulator.params import LiveParams


@dataclass(frozen=True, slots=True)
class Rides:
    """The requests and what had become of them when the run ended. Raises ValueError where they do not add up.

    requests : RequestRide calls that were not refused; = matched + cancelled + expired + open_at_end
    matched : a driver was named, whatever came later
    requests_failed : requests whose time came and that no ride came of, by reason or code, GetQuotes included
    match_ms : from sending RequestRide to WatchRide naming the driver, on the rider's monotonic clock
    pickup_s : from sending RequestRide to WatchRide saying that the driver is at the pickup
    eta_error_s : how much later than promised drivers reach the pickup, of all who set out (the simulation knows at once when
        each will arrive): of how many (n), mean, and p50, p90 and p95 of its size (`abs_p50` is p50, for older readers)
    trip_error_s : the same of trips that began, against the duration that was quoted
    """

    requests: int
    matched: int
    cancelled: int
    expired: int
    open_at_end: int
    completed: int
    requests_failed: Mapping[str, int]
    match_ms: Mapping[str, float | None]
    pickup_s: Mapping[str, float | None]
    eta_error_s: Mapping[str, float | None]
    trip_error_s: Mapping[str, float | None]

    def __post_init__(self) -> None:
        if self.requests != self.matched + self.cancelled + self.expired + self.open_at_end:
            raise ValueError("requests is not matched + cancelled + expired + open_at_end")


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole live run.

    rides : as they stood at its end, before the wind-down
    surge_max : the highest multiplier seen, 1.0 where no cell surged; None where none could be read
    surge_timeline : (seconds since the start, highest multiplier in thousandths, cells above 1), one row per change
    double_assignments : see `simulator.witness`
    refusals, rpc_errors : every non-OK end of a call, expected ones by reason, all others by code; the wind-down included
    rpc_errors_by_method : the same errors, with method and reason
    streams_reopened : streams that ended before we were done and were opened again
    streams_cut_off : tasks that had not ended within the wind-down's time
    rows_dropped : rows of the requests file that could not be used, by reason
    """

    rides: Rides
    offers_shown: int
    fixes_sent: int
    fixes_accepted: int
    fixes_dropped: Mapping[str, int]
    surge_max: float | None
    cells_surging: int
    surge_timeline: tuple[tuple[float, int, int], ...]
    double_assignments: int
    refusals: Mapping[str, int]
    rpc_errors: Mapping[str, int]
    rpc_errors_by_method: Mapping[str, int]
    streams_reopened: Mapping[str, int]
    streams_cut_off: int
    rows_dropped: Mapping[str, int]
    seconds: float
    parameters: Mapping[str, object]

    def as_json(self) -> dict[str, Any]:
        """The summary as one flat JSON object."""
        values = asdict(self)
        return {**values.pop("rides"), **values}

    def with_outbox(self, found: int) -> Summary:
        """The same run, with the double assignments that its event log shows: the larger figure counts."""
        return replace(self, double_assignments=max(self.double_assignments, found))


def rides_now(ledger: Ledger) -> Rides:
    """How do the requests stand at this moment?"""
    outcomes = Counter(record.outcome for record in ledger.requested())
    failed = Counter(ledger.not_quoted) + Counter(record.failed for record in ledger.rides if record.failed)
    eta_error_s = errors_s(np.array(ledger.arrivals.late_s, dtype=np.float64))
    return Rides(
        requests=outcomes.total(),
        matched=outcomes[Outcome.MATCHED],
        cancelled=outcomes[Outcome.CANCELLED],
        expired=outcomes[Outcome.EXPIRED],
        open_at_end=outcomes[Outcome.OPEN],
        completed=sum(record.state is RideState.COMPLETED for record in ledger.rides),
        requests_failed=dict(sorted(failed.items())),
        match_ms=percentiles(ledger.match_ms(), (50, 95, 99)),
        pickup_s=percentiles(ledger.pickup_s(), (50, 95)),
        eta_error_s={**eta_error_s, "abs_p50": eta_error_s["p50"], "abs_p95": eta_error_s["p95"]},
        trip_error_s=errors_s(np.array(ledger.trips.late_s, dtype=np.float64)),
    )


def errors_s(late_s: Floats) -> dict[str, float | None]:
    """How far off were promises? float64[n], seconds, above 0 where it took longer -> n, mean, p50 and so on of the size."""
    mean_s = round(float(late_s.mean()), 1) if len(late_s) else None
    return {"n": len(late_s), "mean": mean_s, **percentiles(np.abs(late_s), (50, 90, 95))}


def percentiles(values: Floats, which: tuple[int, ...]) -> dict[str, float | None]:
    """p50, p95 and so on of float64[n]; None of nothing."""
    if not len(values):
        return dict.fromkeys((f"p{p}" for p in which), None)
    return {f"p{p}": round(float(value), 1) for p, value in zip(which, np.percentile(values, which), strict=True)}


def summary_of(
    rides: Rides,
    ledger: Ledger,
    calls: CallCounts,
    params: LiveParams,
    *,
    cut_off: int,
    seconds: float,
    rows_dropped: Mapping[str, int],
) -> Summary:
    """The summary of a run: the rides as they stood at its end, and everything else with the wind-down."""
    surge = ledger.surge
    return Summary(
        rides=rides,
        offers_shown=ledger.offers_shown,
        fixes_sent=ledger.fixes.sent,
        fixes_accepted=ledger.fixes.accepted,
        fixes_dropped=dict(sorted(ledger.fixes.dropped.items())),
        surge_max=None if surge.max_milli is None else surge.max_milli / 1000,
        cells_surging=len(surge.cells),
        surge_timeline=tuple(surge.timeline),
        double_assignments=double_assignments(ledger.witness.intervals()),
        refusals=dict(sorted(calls.refusals.items())),
        rpc_errors=dict(sorted(calls.rpc_errors.items())),
        rpc_errors_by_method=dict(sorted(calls.errors_by_method.items())),
        streams_reopened=dict(sorted(ledger.reopened.items())),
        streams_cut_off=cut_off,
        rows_dropped=dict(sorted(rows_dropped.items())),
        seconds=round(seconds, 1),
        parameters=asdict(params),
    )
