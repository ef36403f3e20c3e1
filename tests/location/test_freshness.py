"""Which fixes are believed, which is the newest, and what is fresh: case tables, laws, and a plodding twin to compare with."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel.geo import Place, distance_m
from location.freshness import (
    MAX_CONSIDERED,
    METRES_PER_DEGREE,
    Belief,
    BeliefParams,
    Box,
    ReportingParams,
    believe,
    fresh,
    judge,
    reporting_intervals_ms,
)
from location.model import FIX, PENDING, TRACK, DropReason, Records
from tests.location.world import CENTRE, LIMIT_MS, NOON_MS, fix_message, fix_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hexhail.api.location.v1 import fix_pb2
    from hexhail.kernel.units import Ints
    from tests.location.world import World

SPECS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[1] / "specs" / "freshness.json").read_text())
CASES, MOVEMENTS = SPECS["cases"], SPECS["movements"]
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


def flushes_of(movement: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The fixes that are handed in together, with all that the table leaves out."""
    flush: list[dict[str, Any]] = []
    for number, fix in enumerate(movement["fixes"], start=1):
        said = {
            "session": 1,
            "sequence": number,
            "device_s": fix["at_s"],
            "receipt_s": fix["at_s"],
            "accuracy_m": math.nan,
            **fix,
        }
        flush.append(said)
        if not fix.get("with_next"):
            yield flush
            flush = []


def device_time_ms(fix: dict[str, Any], noon_ms: int = NOON_MS) -> int:
    return 0 if fix["device_s"] is None else noon_ms + round(fix["device_s"] * 1000)


def north_of_centre(north_m: float) -> float:
    return CENTRE[0] + north_m / METRES_PER_DEGREE


@pytest.mark.parametrize("movement", MOVEMENTS, ids=[movement["name"] for movement in MOVEMENTS])
def test_each_movement_holds_for_the_pure_function(movement: dict[str, Any]) -> None:
    tracks = np.zeros(1, dtype=TRACK)
    for flush in flushes_of(movement):
        fixes = np.zeros(len(flush), dtype=FIX)
        fixes["heading_deg"] = fixes["speed_mps"] = math.nan
        for row, fix in zip(fixes, flush, strict=True):
            row["session"], row["sequence"], row["accuracy_m"] = fix["session"], fix["sequence"], fix["accuracy_m"]
            row["received_at_ms"], row["device_time_ms"] = NOON_MS + round(fix["at_s"] * 1000), device_time_ms(fix)
            row["lat"], row["lng"] = north_of_centre(fix["north_m"]), CENTRE[1]
        belief = believe(np.zeros(len(flush), dtype=np.int64), fixes, tracks, GRIDPORT, BeliefParams())
        names = [None if outcome == PENDING else DropReason(outcome).name for outcome in belief.outcomes.tolist()]
        assert names == [fix["drop"] for fix in flush]
        written = belief.outcomes == PENDING
        receipts_s = [fix["receipt_s"] for fix in flush if fix["drop"] is None]
        assert ((belief.received_at_ms[written] - NOON_MS) / 1000).tolist() == receipts_s
        tracks = belief.tracks


async def test_each_movement_holds_through_grpc(world: World) -> None:
    """One driver a movement, one after the other; what is handed in together is one report."""
    for number, movement in enumerate(MOVEMENTS):
        name, noon_ms = movement["name"], world.clock.now_ms()
        sessions: dict[int, int] = {}
        for flush in flushes_of(movement):
            world.clock.advance(noon_ms + round(flush[0]["at_s"] * 1000) - world.clock.now_ms())
            messages = [message_of(fix, noon_ms) for fix in flush]
            session = flush[0]["session"]
            reply = await world.report(f"d{number}", *messages, session_id=sessions.get(session, 0))
            sessions[session] = reply.session_id
            drops = {DropReason(drop.reason).name: drop.count for drop in reply.ack.drops}
            assert drops == Counter(fix["drop"] for fix in flush if fix["drop"] is not None), name
            assert reply.ack.accepted == sum(fix["drop"] is None for fix in flush), name


def message_of(fix: dict[str, Any], noon_ms: int) -> fix_pb2.Fix:
    said = {} if math.isnan(fix["accuracy_m"]) else {"accuracy_m": fix["accuracy_m"]}
    place = (north_of_centre(fix["north_m"]), CENTRE[1])
    return fix_message(fix["sequence"], *place, device_time_ms=device_time_ms(fix, noon_ms), **said)


@dataclass(slots=True)
class Plod:
    """One driver's movement as one would follow it with pencil and paper, fix by fix: the twin of `believe`."""

    params: BeliefParams
    believed: Any = None
    suspect: Any = None
    suspects: int = 0
    clock: tuple[int, int] | None = None
    late: int = 0
    due_at_ms: int = 0
    anchor: tuple[float, float, int] | None = None

    def flush(self, rows: list[int], fixes: Records) -> dict[int, tuple[int, int]]:
        """Outcome and receipt of each of these rows, which are this driver's."""
        told = {
            row: (int(judge(fixes[row : row + 1], GRIDPORT, self.params)[0]), int(fixes[row]["received_at_ms"])) for row in rows
        }
        queue: dict[tuple[int, int], int] = {}
        for row in sorted(rows, key=lambda row: (int(fixes[row]["received_at_ms"]), row)):
            if told[row][0] == PENDING:
                if self._knows(fixes[row]) or rank(fixes[row]) in queue:
                    told[row] = (DropReason.NOT_NEWER, told[row][1])
                else:
                    queue[rank(fixes[row])] = row
        ordered = [queue[each] for each in sorted(queue)]
        told |= {row: (DropReason.SUPERSEDED, told[row][1]) for row in ordered[:-MAX_CONSIDERED]}
        before_ms, written = self.due_at_ms, None
        for row in ordered[-MAX_CONSIDERED:]:
            told[row] = self._judge(fixes[row], before_ms)
            if told[row][0] == PENDING:
                if written is not None:
                    told[written] = (DropReason.SUPERSEDED, told[written][1])
                written = row
        return told

    def _knows(self, fix: Any) -> bool:
        if self.believed is not None and rank(fix) <= rank(self.believed):
            return True
        return self._suspects_at(fix) and rank(fix) == rank(self.suspect)

    def _suspects_at(self, fix: Any) -> bool:
        return self.suspects > 0 and int(fix["received_at_ms"]) - int(self.suspect["received_at_ms"]) <= 60_000

    def _judge(self, fix: Any, due_at_ms: int) -> tuple[int, int]:
        arrived_at_ms = int(fix["received_at_ms"])
        if self.believed is not None and not reachable(fix, self.believed, self.params):
            if self._suspects_at(fix) and rank(fix) <= rank(self.suspect):
                return DropReason.IMPOSSIBLE_SPEED, arrived_at_ms
            agrees = self._suspects_at(fix) and reachable(fix, self.suspect, self.params)
            in_a_row = self.suspects + 1 if agrees else 1
            if in_a_row < self.params.recovery_fixes:
                self.suspect, self.suspects = fix, in_a_row
                return DropReason.IMPOSSIBLE_SPEED, arrived_at_ms
        if self.params.min_interval_ms and due_at_ms - arrived_at_ms > (self.params.burst - 1) * self.params.min_interval_ms:
            return DropReason.TOO_FREQUENT, arrived_at_ms
        self.due_at_ms = max(due_at_ms, arrived_at_ms) + self.params.min_interval_ms
        if self.suspects and rank(fix) > rank(self.suspect):
            self.suspects = 0
        place = float(fix["lat"]), float(fix["lng"])
        if self.anchor is None or distance_m(Place(*place), Place(*self.anchor[:2])) > self.params.parked_radius_m:
            self.anchor = (*place, arrived_at_ms)
        delay_ms = self._delay_ms(fix)
        self.believed = fix
        return PENDING, arrived_at_ms - min(delay_ms, self.params.max_network_delay_ms)

    def _delay_ms(self, fix: Any) -> int:
        if self.believed is not None and fix["session"] != self.believed["session"]:
            self.clock, self.late = None, 0
        if fix["device_time_ms"] == 0:
            return 0
        arrived_at_ms = int(fix["received_at_ms"])
        offset_ms = arrived_at_ms - device_ms(fix)
        if self.clock is not None:
            delay_ms = offset_ms - self.clock[0] - max(0, arrived_at_ms - self.clock[1]) // 10_000
            self.late = self.late + 1 if delay_ms > self.params.max_network_delay_ms else 0
            if delay_ms > 0 and self.late < 3:
                return delay_ms
        self.clock, self.late = (offset_ms, arrived_at_ms), 0
        return 0

    def check(self, track: Any) -> None:
        """Does the track say the same?"""
        for mine, theirs in ((self.believed, track["believed"]), (self.suspect, track["suspect"])):
            assert theirs.tobytes() == (mine.tobytes() if mine is not None else bytes(FIX.itemsize))
        assert (self.suspects, self.late, self.due_at_ms) == tuple(
            track[name] for name in ("suspect_fixes", "late_fixes", "next_due_at_ms")
        )
        assert (self.anchor or (0, 0, 0)) == (track["anchor_lat"], track["anchor_lng"], track["anchor_since_ms"])
        if self.clock is not None or track["clock_measured_at_ms"]:
            assert self.clock == (track["clock_offset_ms"], track["clock_measured_at_ms"])


def rank(fix: Any) -> tuple[int, int]:
    return int(fix["session"]), int(fix["sequence"])


def device_ms(fix: Any) -> int:
    return max(-(2**52), min(2**52, int(fix["device_time_ms"])))


def reachable(fix: Any, since: Any, params: BeliefParams) -> bool:
    between_ms = max(0, int(fix["received_at_ms"]) - int(since["received_at_ms"]))
    if fix["session"] == since["session"] and fix["device_time_ms"] and since["device_time_ms"]:
        between_ms = max(between_ms, min(60_000, device_ms(fix) - device_ms(since)))
    unsure_m = sum(float(each["accuracy_m"]) for each in (fix, since) if not math.isnan(each["accuracy_m"]))
    apart_m = distance_m(Place(fix["lat"], fix["lng"]), Place(since["lat"], since["lng"]))
    return apart_m <= between_ms * (params.max_speed_mps / 1000) + params.position_slack_m + unsure_m


@dataclass(slots=True)
class Story:
    """Flushes of some drivers, one after the other, as they were believed."""

    params: BeliefParams
    flushes: list[tuple[Ints, Records]]
    beliefs: list[Belief] = field(default_factory=list)

    def tell(self) -> Story:
        tracks = np.zeros(DRIVERS, dtype=TRACK)
        for driver_rows, fixes in self.flushes:
            self.beliefs.append(believe(driver_rows, fixes, tracks, GRIDPORT, self.params))
            tracks = self.beliefs[-1].tracks
        return self

    def outcomes_of(self, driver: int) -> Iterator[tuple[int, Any]]:
        """The driver's fixes and their outcomes: flush by flush, and in each by session and sequence."""
        for (driver_rows, fixes), belief in zip(self.flushes, self.beliefs, strict=True):
            for row in sorted(np.flatnonzero(driver_rows == driver).tolist(), key=lambda row: rank(fixes[row])):
                yield int(belief.outcomes[row]), fixes[row]


DRIVERS = 3
ABSURD_MS = 2**62


WILD: dict[str, list[Any]] = {
    "driver": [0, 0, 0, 0, 1, 2],
    "step_ms": [0, 0, 1, 300, 4_000, 30_000],
    "session": [1, 1, 1, 2],
    "disorder": [-3, -2, -1, 0, 0, 0, 1],
    "clock_ms": [0, 0, 0, -500, -5_000, -86_400_000, None, ABSURD_MS, -ABSURD_MS],
    "north_m": [0, 0, 10, 40, 150, 500, 5_000, 5_040, 9_000],
    "east_m": [0, 0, 30, 90, 4_000],
    "accuracy_m": [math.nan, math.nan, math.nan, 5.7, 147.3, 300.0, math.inf],
    "off_lat": [0] * 15 + [10, math.nan],
}
"""What fixes are made of, mostly well-behaved, now and then wild."""

VARIETY = math.prod(len(choices) for choices in WILD.values())


def chosen(code: int) -> dict[str, Any]:
    """The one of all fixes that has this number."""
    choice = {}
    for name, choices in WILD.items():
        code, which = divmod(code, len(choices))
        choice[name] = choices[which]
    return choice


def wild_fix(choice: dict[str, Any], number: int, at_ms: int) -> tuple[Any, ...]:
    """A row of layout FIX."""
    clock_ms = choice["clock_ms"]
    device = 0 if clock_ms is None else clock_ms if abs(clock_ms) == ABSURD_MS else at_ms + clock_ms
    lat, lng = north_of_centre(choice["north_m"]) + choice["off_lat"], CENTRE[1] + choice["east_m"] / METRES_PER_DEGREE
    sequence = max(1, number + choice["disorder"])
    return choice["session"], sequence, device, at_ms, lat, lng, math.nan, math.nan, choice["accuracy_m"]


@st.composite
def stories(draw: st.DrawFn, longest_flush: int = 16, shortest_step_ms: int = 0) -> Story:
    """Arrivals never go back, and everything else may."""
    params = BeliefParams(
        max_network_delay_ms=draw(st.sampled_from([0, 2_000])),
        position_slack_m=draw(st.sampled_from([0, 100])),
        recovery_fixes=draw(st.sampled_from([1, 2, 3])),
        min_interval_ms=draw(st.sampled_from([0, 500, 5_000])),
        burst=draw(st.sampled_from([1, 2, 10])),
    )
    flushes, at_ms, number = [], NOON_MS, 0
    for codes in draw(st.lists(st.lists(st.integers(0, VARIETY - 1), max_size=longest_flush), max_size=6)):
        choices = [chosen(code) for code in codes]
        rows = []
        for choice in choices:
            at_ms, number = at_ms + max(shortest_step_ms, choice["step_ms"]), number + 1
            rows.append(wild_fix(choice, number, at_ms))
        flushes.append((np.array([choice["driver"] for choice in choices], dtype=np.int64), np.array(rows, dtype=FIX)))
    return Story(params, flushes).tell()


@settings(max_examples=300)
@given(stories())
def test_columns_are_believed_as_one_would_fix_by_fix(story: Story) -> None:
    plods = [Plod(story.params) for _ in range(DRIVERS)]
    for (driver_rows, fixes), belief in zip(story.flushes, story.beliefs, strict=True):
        for driver, plod in enumerate(plods):
            mine = np.flatnonzero(driver_rows == driver).tolist()
            told = plod.flush(mine, fixes)
            assert {row: (int(belief.outcomes[row]), int(belief.received_at_ms[row])) for row in mine} == told
            plod.check(belief.tracks[driver])


@given(stories(shortest_step_ms=1), st.integers(0, 2**32))
def test_in_what_order_a_flush_is_handed_over_changes_nothing(story: Story, seed: int) -> None:
    chance = np.random.default_rng(seed)
    tracks = np.zeros(DRIVERS, dtype=TRACK)
    for (driver_rows, fixes), belief in zip(story.flushes, story.beliefs, strict=True):
        order = chance.permutation(len(fixes))
        shuffled = believe(driver_rows[order], fixes[order], tracks, GRIDPORT, story.params)
        assert shuffled.outcomes.tolist() == belief.outcomes[order].tolist()
        assert shuffled.received_at_ms.tolist() == belief.received_at_ms[order].tolist()
        assert shuffled.tracks.tobytes() == belief.tracks.tobytes()
        tracks = belief.tracks


@given(stories())
def test_of_each_driver_at_most_one_fix_is_written_and_it_is_the_newest_believed(story: Story) -> None:
    for (driver_rows, fixes), belief in zip(story.flushes, story.beliefs, strict=True):
        for driver in range(DRIVERS):
            mine = np.flatnonzero(driver_rows == driver)
            pending = mine[belief.outcomes[mine] == PENDING]
            assert len(pending) <= 1
            if len(pending):
                believed = mine[np.isin(belief.outcomes[mine], [PENDING, DropReason.SUPERSEDED])]
                assert rank(fixes[pending[0]]) == max(rank(fixes[row]) for row in believed)
                assert belief.tracks[driver]["believed"].tobytes() == fixes[pending[0]].tobytes()


@given(stories())
def test_the_tracks_that_are_handed_in_stay_as_they_were(story: Story) -> None:
    tracks = np.zeros(DRIVERS, dtype=TRACK)
    for (driver_rows, fixes), belief in zip(story.flushes, story.beliefs, strict=True):
        before, fixes_before = tracks.tobytes(), fixes.tobytes()
        again = believe(driver_rows, fixes, tracks, GRIDPORT, story.params)
        assert (tracks.tobytes(), fixes.tobytes()) == (before, fixes_before)
        assert again.tracks.tobytes() == belief.tracks.tobytes()
        tracks = belief.tracks


@given(stories())
def test_a_fix_counts_as_received_no_later_than_it_arrived_nor_earlier_than_the_bounded_delay(story: Story) -> None:
    for (_, fixes), belief in zip(story.flushes, story.beliefs, strict=True):
        delays_ms = fixes["received_at_ms"] - belief.received_at_ms
        assert ((delays_ms >= 0) & (delays_ms <= story.params.max_network_delay_ms)).all()


@given(stories(longest_flush=MAX_CONSIDERED), st.integers(0, 60))
def test_however_a_flush_is_split_nobody_is_believed_to_have_jumped_but_by_recovery(story: Story, at: int) -> None:
    """From each believed fix the next is reachable, or enough before it were not; an older one does not unsay those."""
    driver_rows = np.concatenate([np.zeros(0, dtype=np.int64), *(rows for rows, _ in story.flushes)])
    fixes = np.concatenate([np.zeros(0, dtype=FIX), *(fixes for _, fixes in story.flushes)])
    split = Story(story.params, [(driver_rows[:at][-MAX_CONSIDERED:], fixes[:at][-MAX_CONSIDERED:])])
    split.flushes.append((driver_rows[at:][:MAX_CONSIDERED], fixes[at:][:MAX_CONSIDERED]))
    for told in (story, split.tell()):
        for driver in range(DRIVERS):
            believed, impossible = None, list[tuple[int, int]]()
            for outcome, fix in told.outcomes_of(driver):
                if outcome == DropReason.IMPOSSIBLE_SPEED:
                    impossible.append(rank(fix))
                elif outcome in {PENDING, DropReason.SUPERSEDED}:
                    recovered = sum(each < rank(fix) for each in impossible) >= told.params.recovery_fixes - 1
                    assert believed is None or recovered or reachable(fix, believed, told.params)
                    believed, impossible = fix, [each for each in impossible if each > rank(fix)]


@given(
    st.lists(st.lists(st.sampled_from([0, 1, 10, 100, 499, 500, 3_000]), min_size=1, max_size=3), max_size=60),
    st.integers(1, 5),
    st.sampled_from([100, 500, 2_000]),
)
def test_in_no_span_of_time_is_more_written_than_burst_and_interval_allow(
    steps_ms: Sequence[Sequence[int]], burst: int, interval_ms: int
) -> None:
    params = BeliefParams(min_interval_ms=interval_ms, burst=burst)
    tracks, at_ms, sequence, written_ms = np.zeros(1, dtype=TRACK), NOON_MS, 0, []
    for steps in steps_ms:
        rows = []
        for step_ms in steps:
            at_ms, sequence = at_ms + step_ms, sequence + 1
            rows.append(fix_row(*CENTRE, sequence=sequence, at_ms=at_ms))
        fixes = np.concatenate(rows)
        belief = believe(np.zeros(len(fixes), dtype=np.int64), fixes, tracks, GRIDPORT, params)
        written_ms += fixes["received_at_ms"][belief.outcomes == PENDING].tolist()
        tracks = belief.tracks
    for first in range(len(written_ms)):
        for last in range(first, len(written_ms)):
            assert last - first + 1 <= burst + (written_ms[last] - written_ms[first]) // interval_ms


def test_without_a_shortest_interval_nothing_is_too_frequent_not_even_what_was_held_up_here() -> None:
    params, here, tracks = BeliefParams(min_interval_ms=0, burst=1), np.zeros(1, dtype=np.int64), np.zeros(1, dtype=TRACK)
    for sequence, at_ms in enumerate((NOON_MS, NOON_MS, NOON_MS - 50), start=1):
        belief = believe(here, fix_row(*CENTRE, sequence=sequence, at_ms=at_ms), tracks, GRIDPORT, params)
        assert belief.outcomes.tolist() == [PENDING]
        tracks = belief.tracks


def test_each_driver_of_a_large_flush_is_believed_as_it_would_be_alone() -> None:
    chance = np.random.default_rng(5)
    count = 400
    fixes = np.concatenate([fix_row(*CENTRE, sequence=1 + row // 3, at_ms=NOON_MS + row) for row in range(count)])
    fixes["lat"] = north_of_centre(0) + chance.choice([0, 0, 0, 0.001, 0.05], count)
    driver_rows = chance.integers(0, 100, count)
    tracks = np.zeros(100, dtype=TRACK)
    together = believe(driver_rows, fixes, tracks, GRIDPORT, BeliefParams())
    for driver in range(100):
        mine = driver_rows == driver
        alone = believe(driver_rows[mine], fixes[mine], tracks, GRIDPORT, BeliefParams())
        assert alone.outcomes.tolist() == together.outcomes[mine].tolist()
        assert alone.tracks[driver].tobytes() == together.tracks[driver].tobytes()


def test_a_flush_of_nothing_is_believed() -> None:
    belief = believe(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=FIX), np.zeros(0, dtype=TRACK), GRIDPORT, BeliefParams())
    assert (len(belief.outcomes), len(belief.received_at_ms), len(belief.tracks)) == (0, 0, 0)


def test_of_a_driver_at_the_origin_something_is_known() -> None:
    """Latitude 0, longitude 0 is a place like any other."""
    everywhere, params = Box(-90, -180, 90, 180), BeliefParams()
    here = np.zeros(1, dtype=np.int64)
    belief = believe(here, fix_row(0.0, 0.0), np.zeros(1, dtype=TRACK), everywhere, params)
    far = believe(here, fix_row(1.0, 0.0, sequence=2, at_ms=NOON_MS + 1_000), belief.tracks, everywhere, params)
    assert (belief.outcomes.tolist(), far.outcomes.tolist()) == ([PENDING], [DropReason.IMPOSSIBLE_SPEED])
    assert belief.tracks["anchor_since_ms"].tolist() == [NOON_MS]


def test_nobody_is_far_away_across_the_date_line() -> None:
    everywhere, params = Box(-90, -180, 90, 180), BeliefParams()
    here = np.zeros(1, dtype=np.int64)
    belief = believe(here, fix_row(-17.0, 179.9999), np.zeros(1, dtype=TRACK), everywhere, params)
    across = believe(here, fix_row(-17.0, -179.9999, sequence=2, at_ms=NOON_MS + 1_000), belief.tracks, everywhere, params)
    assert across.outcomes.tolist() == [PENDING]


def stood(since_s: float, north_m: float = 0) -> Records:
    """The track of a driver who came to the centre so long before noon, and reported at noon from so far away."""
    params, here = BeliefParams(), np.zeros(1, dtype=np.int64)
    came = fix_row(*CENTRE, at_ms=NOON_MS - round(since_s * 1000))
    there = believe(here, came, np.zeros(1, dtype=TRACK), GRIDPORT, params).tracks
    return believe(here, fix_row(north_of_centre(north_m), CENTRE[1], sequence=2), there, GRIDPORT, params).tracks


@pytest.mark.parametrize(
    ("track", "on_ride", "expected_ms"),
    [
        (np.zeros(1, dtype=TRACK), False, 4_000),
        (np.zeros(1, dtype=TRACK), True, 2_000),
        (stood(119.9), False, 4_000),
        (stood(120), False, 10_000),
        (stood(3_600, north_m=29), False, 10_000),
        (stood(3_600, north_m=31), False, 4_000),
        (stood(3_600), True, 2_000),
    ],
    ids=["unknown", "unknown, on a ride", "not for long", "parked", "unsteady GPS", "drove off", "waiting, on a ride"],
)
def test_drivers_are_asked_by_what_they_do(track: Records, on_ride: bool, expected_ms: int) -> None:
    asked_ms = reporting_intervals_ms(track, np.array([on_ride]), NOON_MS, LIMIT_MS, ReportingParams())
    assert asked_ms.tolist() == [expected_ms]


@given(st.integers(300, 60_000), st.booleans())
def test_nobody_is_asked_less_often_than_three_times_within_the_limit(limit_ms: int, on_ride: bool) -> None:
    asked_ms = reporting_intervals_ms(stood(600), np.array([on_ride]), NOON_MS, limit_ms, ReportingParams())
    assert 0 < asked_ms[0] <= limit_ms / 3


def test_fresh_means_less_than_the_limit_old_and_of_this_clock() -> None:
    ages_ms = np.array([0, 29_999, 30_000, -500, -30_000])
    assert fresh(NOON_MS - ages_ms, NOON_MS, 30_000).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_accuracy_m": 0},
        {"city_margin_m": -1},
        {"max_network_delay_ms": -1},
        {"max_speed_mps": 0},
        {"position_slack_m": -1},
        {"recovery_fixes": 0},
        {"min_interval_ms": -1},
        {"burst": 0},
        {"parked_radius_m": math.nan},
    ],
)
def test_belief_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BeliefParams(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"report_interval_ms": 99}, {"on_ride_interval_ms": 4_001}, {"parked_interval_ms": 3_999}, {"parked_after_s": -1}],
)
def test_reporting_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReportingParams(**wrong)
