"""Which fixes are believed, when were they received, which positions count, how often is a driver asked? Pure, on whole columns.

A fix is first judged for itself (`judge`), then against what is known of its driver's movement, its track (`believe`). Only
believed fixes change a track, but for one thing: a fix too far away to be believed is remembered as the suspect. If more follow
that agree with it, it was the track that had gone wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S
from location.model import PENDING, DropReason, Outcomes, Records, blocks, taken

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints

MAX_ACCURACY_M: Final = 10_000.0
MAX_SPEED_MPS: Final = 100.0
MAX_HEADING_DEG: Final = 360.0
METRES_PER_DEGREE: Final = math.radians(geo.EARTH_RADIUS_M)


MAX_CONSIDERED: Final = 8
"""Of one driver's fixes in one flush, at most so many are looked at, the newest: it bounds the work that one sender can make."""

SUSPECT_LIFE_MS: Final = 60_000
"""A suspect that nothing follows within this time is forgotten. Source: our choice, twice the limit of freshness."""

MAX_DEVICE_GAP_MS: Final = 60_000
"""No more than this is believed of the time that a device's clock puts between two fixes which arrived together: a phone kept its
reports until it was out of the tunnel, and a few were lost or too inaccurate. Source: our choice."""

MAX_LATE_FIXES: Final = 3
"""After so many late ones in a row, it is the device's clock that was moved. Source: our choice."""

DRIFT_DIVISOR: Final = 10_000
"""A device's clock may lose a ten-thousandth against ours (100 ppm; quartz keeps to about 50). Source: our choice."""

MAX_DEVICE_TIME_MS: Final = 2**52
"""Device times beyond count as this one, so that no difference of two overflows."""


@dataclass(frozen=True, slots=True)
class BeliefParams:
    """How much a city believes of what phones say. Source: our choice.

    max_accuracy_m : fixes with a wider circle of 68 % confidence are dropped
    city_margin_m : how far beyond the service area's bounding box a driver may be and still be followed
    max_network_delay_ms : at most this much is taken off the time of receipt, for fixes that were long on their way; 0 takes
        the receipt as it is
    max_speed_mps : nobody drives faster from one fix to the next; the default is 252 km/h
    position_slack_m : so much farther off may a fix be, besides the accuracy that it states
    recovery_fixes : of so many impossible fixes in a row that agree with each other, the last is believed; 1 believes all
    min_interval_ms : no driver's position is written more often than this in the long run; 0 sets no limit
    burst : so many may be written at once after a while without
    parked_radius_m : a driver whose fixes stay within this distance of the first of them stands
    """

    max_accuracy_m: float = 200.0
    city_margin_m: float = 20_000.0
    max_network_delay_ms: int = 2_000
    max_speed_mps: float = 70.0
    position_slack_m: float = 100.0
    recovery_fixes: int = 3
    min_interval_ms: int = 500
    burst: int = 10
    parked_radius_m: float = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 0 < self.max_accuracy_m <= MAX_ACCURACY_M:
            raise ValueError(f"max_accuracy_m must be above 0 and at most {MAX_ACCURACY_M:.0f}")
        for name, least, most in (
            ("city_margin_m", 0, 1_000_000),
            ("max_network_delay_ms", 0, 10_000),
            ("max_speed_mps", 1, 1_000),
            ("position_slack_m", 0, 10_000),
            ("recovery_fixes", 1, 100),
            ("min_interval_ms", 0, 10_000),
            ("burst", 1, 1_000),
            ("parked_radius_m", 1, 1_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be {least} to {most:,}")


@dataclass(frozen=True, slots=True)
class ReportingParams:
    """How often a city asks its drivers to report. Source: the rule N2 of docs/sources.md, the rest our choice.

    report_interval_ms : as a rule
    on_ride_interval_ms : on a ride, whose rider looks on
    parked_interval_ms : from drivers who have stood for parked_after_s
    """

    report_interval_ms: int = 4_000
    on_ride_interval_ms: int = 2_000
    parked_interval_ms: int = 10_000
    parked_after_s: float = 120.0

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 100 <= self.report_interval_ms <= 10_000:
            raise ValueError("report_interval_ms must be 100 to 10,000")
        if not 100 <= self.on_ride_interval_ms <= self.report_interval_ms:
            raise ValueError("on_ride_interval_ms must be 100 to report_interval_ms")
        if not self.report_interval_ms <= self.parked_interval_ms <= 60_000:
            raise ValueError("parked_interval_ms must be report_interval_ms to 60,000")
        if not 0 <= self.parked_after_s <= 86_400:
            raise ValueError("parked_after_s must be 0 to 86,400")


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of the fixes of one flush.

    outcomes : int8[n]: PENDING for the newest believed fix of each driver, which is the one to be written, else the DropReason
    received_at_ms : int64[n], when each counts as received: the arrival, less a bounded delay where the fix is believed
    tracks : TRACK[m] as they are once the pending fixes are written
    """

    outcomes: Outcomes
    received_at_ms: Ints
    tracks: Records


@dataclass(frozen=True, slots=True)
class Box:
    """The latitudes and longitudes in which fixes of a city are believed, degrees."""

    south: float
    west: float
    north: float
    east: float

    def widened(self, margin_m: float) -> Box:
        """The box with a margin on every side."""
        dlat = margin_m / METRES_PER_DEGREE
        shrink = math.cos(math.radians(min(89.0, max(abs(self.south), abs(self.north)) + dlat)))
        dlng = dlat / shrink
        return Box(self.south - dlat, self.west - dlng, self.north + dlat, self.east + dlng)


def judge(fixes: Records, box: Box, params: BeliefParams) -> Outcomes:
    """Which fixes are believed for themselves, and why are the others not?

    fixes : FIX[n]; optional figures are NaN where absent
    Returns int8[n]: PENDING where believed, else the DropReason. Each row is judged alone, so order never matters.
    Source: our choice of reasons; ranges as fix.proto states them.
    """
    outcomes = np.full(len(fixes), PENDING, dtype=np.int8)
    lat, lng, accuracy = fixes["lat"], fixes["lng"], fixes["accuracy_m"]
    inside = (lat >= box.south) & (lat <= box.north) & (lng >= box.west) & (lng <= box.east)
    outcomes[~inside] = DropReason.OUTSIDE_CITY
    outcomes[accuracy > params.max_accuracy_m] = DropReason.INACCURATE
    possible = (np.abs(lat) <= 90) & (np.abs(lng) <= 180)
    for column, limit in (("heading_deg", MAX_HEADING_DEG), ("speed_mps", MAX_SPEED_MPS), ("accuracy_m", MAX_ACCURACY_M)):
        values = fixes[column]
        possible &= np.isnan(values) | ((values >= 0) & (values <= limit))
    outcomes[~possible] = DropReason.OUT_OF_RANGE
    return outcomes


def believe(driver_rows: Ints, fixes: Records, tracks: Records, box: Box, params: BeliefParams) -> Belief:
    """Which fixes are believed, which of them is each driver's newest, and what is known of the drivers then?

    driver_rows : int64[n], whose fix each is: the row in `tracks`
    fixes : FIX[n] in the order of their arrival at this worker, which `received_at_ms` holds
    tracks : TRACK[m], left as it is: where a write fails, all can be judged again

    The fixes of one driver are judged in the order of session and sequence, each against what those before it left: so an
    impossible newest fix does not cost a believable older one. Believed ones that are not the newest are SUPERSEDED. The order of
    the rows matters only among fixes of one driver with equal session, sequence and arrival. The other reasons, the first that
    applies:

    OUT_OF_RANGE, INACCURATE, OUTSIDE_CITY : as `judge` has it
    NOT_NEWER : by session and sequence not above the last believed fix; or known already, as the suspect or from this flush,
        where the first to arrive counts
    SUPERSEDED : MAX_CONSIDERED newer ones are in this flush
    IMPOSSIBLE_SPEED : not `_reachable` from the last believed fix. Such a fix becomes the suspect; once `recovery_fixes` in a
        row, each newer than the suspect before it, were reachable one from the other, the last of them is believed. A new session
        makes nothing possible, for there may be two phones; a long silence does. A believed fix clears the suspect, unless that
        is newer: of two phones the newer session wins, however far apart they are
    TOO_FREQUENT : see `_too_frequent`. It changes nothing in the track. Since it is the store that is spared, only what is
        written counts, not what is superseded in the same flush

    Source: our choice, except as cited.
    """
    outcomes = judge(fixes, box, params)
    outcomes[(outcomes == PENDING) & _known(driver_rows, fixes, tracks)] = DropReason.NOT_NEWER
    queue = _queued(driver_rows, fixes, np.flatnonzero(outcomes == PENDING))
    outcomes[queue.repeats] = DropReason.NOT_NEWER
    outcomes[queue.passed_over] = DropReason.SUPERSEDED
    receipts = fixes["received_at_ms"].copy()
    after = blocks(tracks).copy().view(tracks.dtype)
    newest = np.full(len(tracks), -1, dtype=np.int64)
    for rows in queue.rounds:
        some = _rows(fixes, rows)
        outcomes[rows] = verdicts = _judged_moves(driver_rows[rows], some, after, tracks["next_due_at_ms"], params)
        believed = np.flatnonzero(verdicts == PENDING)
        pending, drivers = rows[believed], driver_rows[rows[believed]]
        receipts[pending] = _remember(drivers, _rows(some, believed), after, tracks["next_due_at_ms"], params)
        older = newest[drivers]
        outcomes[older[older >= 0]] = DropReason.SUPERSEDED
        newest[drivers] = pending
    return Belief(outcomes, receipts, after)


def _known(driver_rows: Ints, fixes: Records, tracks: Records) -> Bools:
    """Which fixes are not newer than what is believed of their drivers, or are the suspect once more?"""
    believed, suspect = tracks["believed"], tracks["suspect"]
    known = ~_newer(fixes, believed["session"][driver_rows], believed["sequence"][driver_rows])
    if tracks["suspect_fixes"].any():
        same_session = fixes["session"] == suspect["session"][driver_rows]
        same = same_session & (fixes["sequence"] == suspect["sequence"][driver_rows])
        known |= same & _suspicious(_rows(tracks, driver_rows), fixes["received_at_ms"])
    return known


def _rows(records: Records, rows: Ints) -> Records:
    """These rows, distinct: the records themselves where they are all of them in order, else a copy."""
    if len(rows) == len(records) and (rows[1:] > rows[:-1]).all():
        return records
    return taken(records, rows)


def is_newer(fixes: Records, others: Records) -> Bools:
    """Which fixes come after the others, row by row, by session and sequence? FIX[k], FIX[k] -> bool[k]."""
    return _newer(fixes, others["session"], others["sequence"])


def _newer(fixes: Records, session: Ints, sequence: Ints) -> Bools:
    """Which fixes come after these? FIX[k], int64[k], int64[k] -> bool[k]."""
    later = fixes["session"] == session
    later &= fixes["sequence"] > sequence
    later |= fixes["session"] > session
    return np.asarray(later, dtype=np.bool_)


def _suspicious(tracks: Records, arrived_at_ms: Ints) -> Bools:
    """Which drivers have a suspect that is not forgotten? TRACK[k], int64[k] -> bool[k]."""
    age_ms = arrived_at_ms - tracks["suspect"]["received_at_ms"]
    return np.asarray((tracks["suspect_fixes"] > 0) & (age_ms <= SUSPECT_LIFE_MS), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Queue:
    """In which rounds are fixes judged? A round holds at most one fix of a driver, its older ones are in the rounds before."""

    rounds: list[Ints]
    repeats: Ints
    passed_over: Ints


def _queued(driver_rows: Ints, fixes: Records, rows: Ints) -> _Queue:
    """The order in which these rows are judged. Drivers with one fix in the flush, nearly all, need no sorting."""
    drivers = driver_rows[rows]
    alone = np.bincount(drivers)[drivers] == 1 if len(rows) else np.zeros(0, dtype=np.bool_)
    if alone.all():
        return _Queue([rows] if len(rows) else [], rows[:0], rows[:0])
    crowd = rows[~alone]
    columns = [fixes[name][crowd] for name in ("received_at_ms", "sequence", "session")]
    order = np.lexsort((*columns, driver_rows[crowd]))
    _, sequences, sessions = (column[order] for column in columns)
    crowd = crowd[order]
    same_driver = _as_before(driver_rows[crowd])
    again = same_driver & _as_before(sessions) & _as_before(sequences)
    repeats, crowd = crowd[again], crowd[~again]
    begins = np.flatnonzero(~same_driver[~again])
    lengths = np.diff(begins, append=len(crowd))
    number = np.arange(len(crowd)) - np.repeat(begins + np.maximum(lengths - MAX_CONSIDERED, 0), lengths)
    rounds = [crowd[number == each] for each in range(min(int(lengths.max()), MAX_CONSIDERED))]
    return _Queue([np.append(rows[alone], rounds[0]), *rounds[1:]], repeats, crowd[number < 0])


def _as_before(values: Ints) -> Bools:
    """Which entries equal the one before them?"""
    return np.append(False, values[1:] == values[:-1])


def _judged_moves(driver_rows: Ints, fixes: Records, tracks: Records, due_at_ms: Ints, params: BeliefParams) -> Outcomes:
    """Which of these fixes, at most one a driver and newer than what is believed, are possible and not too frequent?

    due_at_ms : int64[m] as it was before the flush
    The suspects are remembered in `tracks`, TRACK[m].
    """
    outcomes = np.full(len(fixes), PENDING, dtype=np.int8)
    far = np.flatnonzero(~_reachable(fixes, _rows(tracks["believed"], driver_rows), params))
    if len(far):
        in_a_row = _suspects_in_a_row(_rows(fixes, far), _rows(tracks, driver_rows[far]), params)
        outcomes[far[in_a_row < params.recovery_fixes]] = DropReason.IMPOSSIBLE_SPEED
        kept = (in_a_row > 0) & (in_a_row < params.recovery_fixes)
        blocks(tracks["suspect"])[driver_rows[far[kept]]] = blocks(_rows(fixes, far[kept]))
        tracks["suspect_fixes"][driver_rows[far[kept]]] = in_a_row[kept]
    hasty = (outcomes == PENDING) & _too_frequent(fixes["received_at_ms"], due_at_ms[driver_rows], params)
    outcomes[hasty] = DropReason.TOO_FREQUENT
    return outcomes


def _reachable(fixes: Records, since: Records, params: BeliefParams) -> Bools:
    """Can a car have come from there to here? FIX[k], FIX[k] of before -> bool[k]; everywhere is reachable from nowhere.

    The great-circle distance, less the accuracy that both fixes state and the slack, must not be more than `max_speed_mps` makes
    of the time between. That is the time between the arrivals or, if longer and within a session, between the device's times, for
    a phone may send at once what it kept. What a device says of it is believed up to MAX_DEVICE_GAP_MS.
    """
    between_ms = np.maximum(fixes["received_at_ms"] - since["received_at_ms"], 0)
    timed = (fixes["session"] == since["session"]) & (fixes["device_time_ms"] != 0) & (since["device_time_ms"] != 0)
    device_ms = np.minimum(_device_times_ms(fixes) - _device_times_ms(since), MAX_DEVICE_GAP_MS)
    np.maximum(between_ms, device_ms, out=between_ms, where=timed)
    reach_m = between_ms * (params.max_speed_mps / MS_PER_S) + params.position_slack_m
    for stated in (fixes["accuracy_m"], since["accuracy_m"]):
        reach_m += np.fmax(stated, 0.0)
    return ~_anywhere(since) | _within(reach_m, fixes["lat"], fixes["lng"], since["lat"], since["lng"])


def _within(reach_m: Floats, lat_a: Floats, lng_a: Floats, lat_b: Floats, lng_b: Floats) -> Bools:
    """Which points are within reach of the others, along great circles?

    No great circle is longer than the way north and then the way east, nor shorter than the way north: most are told by that.
    """
    north_m = METRES_PER_DEGREE * np.abs(lat_a - lat_b)
    within = north_m + METRES_PER_DEGREE * np.abs(lng_a - lng_b) <= reach_m
    unsure = np.flatnonzero(~within & (north_m <= reach_m))
    within[unsure] = geo.distances_m(lat_a[unsure], lng_a[unsure], lat_b[unsure], lng_b[unsure]) <= reach_m[unsure]
    return within


def _anywhere(believed: Records) -> Bools:
    """Which are fixes at all, and not the zeros of a driver of whom nothing is known?"""
    return np.asarray((believed["session"] != 0) | (believed["sequence"] != 0), dtype=np.bool_)


def _device_times_ms(fixes: Records) -> Ints:
    return np.asarray(fixes["device_time_ms"].clip(-MAX_DEVICE_TIME_MS, MAX_DEVICE_TIME_MS), dtype=np.int64)


def _suspects_in_a_row(fixes: Records, tracks: Records, params: BeliefParams) -> Ints:
    """Which suspect in a row is each of these impossible fixes? int64[k], 0 where its track's (TRACK[k]) is newer."""
    suspect = tracks["suspect"]
    suspicious = _suspicious(tracks, fixes["received_at_ms"])
    newer = _newer(fixes, suspect["session"], suspect["sequence"])
    agrees = suspicious & _reachable(fixes, suspect, params)
    return np.where(suspicious & ~newer, 0, np.where(agrees, tracks["suspect_fixes"], 0) + 1)


def _too_frequent(arrived_at_ms: Ints, due_at_ms: Ints, params: BeliefParams) -> Bools:
    """Which fixes would exceed `burst` at once and one each `min_interval_ms` after that? int64[k], int64[k] -> bool[k].

    Source: the virtual scheduling algorithm of ITU-T I.371 (GCRA); `due_at_ms` is its theoretical arrival time.
    """
    ahead_ms = (params.burst - 1) * params.min_interval_ms if params.min_interval_ms else math.inf
    return np.asarray(due_at_ms - arrived_at_ms > ahead_ms, dtype=np.bool_)


def _remember(driver_rows: Ints, fixes: Records, tracks: Records, due_at_ms: Ints, params: BeliefParams) -> Ints:
    """Changes `tracks`, TRACK[m], to what is known once these fixes are believed. When does each count as received? int64[k].

    due_at_ms : int64[m] as it was before the flush
    """
    arrived_at_ms = fixes["received_at_ms"]
    delay_ms = _measure_delays_ms(driver_rows, fixes, tracks, params)
    _keep_anchors(driver_rows, fixes, tracks, params)
    tracks["next_due_at_ms"][driver_rows] = np.maximum(due_at_ms[driver_rows], arrived_at_ms) + params.min_interval_ms
    suspect = tracks["suspect"]
    if tracks["suspect_fixes"].any():
        cleared = _newer(fixes, suspect["session"][driver_rows], suspect["sequence"][driver_rows])
        tracks["suspect_fixes"][driver_rows[cleared]] = 0
    blocks(tracks["believed"])[driver_rows] = blocks(fixes)
    return arrived_at_ms - np.minimum(delay_ms, params.max_network_delay_ms)


def _measure_delays_ms(driver_rows: Ints, fixes: Records, tracks: Records, params: BeliefParams) -> Ints:
    """How long was each of these believed fixes on its way? int64[k], 0 where nobody can say. Remembers the clocks in `tracks`.

    What a device's clock is behind ours is its offset: arrival less device time of the fix that was quickest on its way, and what
    the clock may have lost since (DRIFT_DIVISOR). By so much as a fix is later than that, it was delayed: a clock that is a day
    off is as good as any. The offset is measured anew in every session, by every fix that was quicker, and by the last of
    MAX_LATE_FIXES in a row that seem more than `max_network_delay_ms` late: then it was the clock that was moved. A device time
    of 0 says nothing.
    Source: our choice.
    """
    arrived_at_ms = fixes["received_at_ms"]
    said = fixes["device_time_ms"] != 0
    same_session = fixes["session"] == tracks["believed"]["session"][driver_rows]
    measured_at_ms = np.where(same_session, tracks["clock_measured_at_ms"][driver_rows], 0)
    late_fixes = np.where(same_session, tracks["late_fixes"][driver_rows], 0)
    offset_ms = tracks["clock_offset_ms"][driver_rows]
    measured_ms = arrived_at_ms - _device_times_ms(fixes)
    delay_ms = measured_ms - offset_ms - np.maximum(arrived_at_ms - measured_at_ms, 0) // DRIFT_DIVISOR
    late_fixes = np.where(said, (late_fixes + 1) * (delay_ms > params.max_network_delay_ms), late_fixes)
    anew = said & ((measured_at_ms == 0) | (delay_ms <= 0) | (late_fixes >= MAX_LATE_FIXES))
    tracks["clock_offset_ms"][driver_rows] = np.where(anew, measured_ms, offset_ms)
    tracks["clock_measured_at_ms"][driver_rows] = np.where(anew, arrived_at_ms, measured_at_ms)
    tracks["late_fixes"][driver_rows] = np.where(anew, 0, late_fixes)
    return np.where(said & ~anew, delay_ms, 0)


def _keep_anchors(driver_rows: Ints, fixes: Records, tracks: Records, params: BeliefParams) -> None:
    """Moves the anchors in `tracks` of those who have left them, or have none yet."""
    anchor_lat, anchor_lng = tracks["anchor_lat"][driver_rows], tracks["anchor_lng"][driver_rows]
    radius_m = np.full(len(fixes), params.parked_radius_m)
    away = ~_within(radius_m, fixes["lat"], fixes["lng"], anchor_lat, anchor_lng) | (tracks["anchor_since_ms"][driver_rows] == 0)
    left = driver_rows[away]
    for name, values in (("lat", fixes["lat"]), ("lng", fixes["lng"]), ("since_ms", fixes["received_at_ms"])):
        tracks[f"anchor_{name}"][left] = values[away]


def reporting_intervals_ms(tracks: Records, on_ride: Bools, now_ms: int, limit_ms: int, params: ReportingParams) -> Ints:
    """How often is each driver asked to report?

    tracks : TRACK[m]
    on_ride : bool[m]
    limit_ms : the city's limit of freshness; nobody is asked to report less often than three times within it
    Returns int64[m]. Who has stood for `parked_after_s` is asked less often, who is on a ride more often. Source: our choice.
    """
    stood_ms = now_ms - tracks["anchor_since_ms"]
    parked = (tracks["anchor_since_ms"] != 0) & (stood_ms >= params.parked_after_s * MS_PER_S)
    intervals_ms = np.where(parked, params.parked_interval_ms, params.report_interval_ms)
    return np.minimum(np.where(on_ride, params.on_ride_interval_ms, intervals_ms), limit_ms // 3)


def fresh(received_ms: Ints, now_ms: int, limit_ms: int) -> Bools:
    """Which positions still count: received less than `limit_ms` ago?

    received_ms : int64[n]
    A receipt as far in the future is none of this clock's (a store that outlived a demo of another night) and counts as silent.
    """
    return np.asarray(np.abs(now_ms - received_ms) < limit_ms, dtype=np.bool_)
