"""`hexhail explain` as it is typed, and how an explanation reads."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from hexhail.cli.app import _fail
from hexhail.cli.errors import ServiceError
from hexhail.cli.explain import add_explain, timeline
from hexhail.client import Addresses, OfferState, RideState, RideView
from hexhail.client.explanation_views import (
    AbsenceView,
    CandidateView,
    OfferCourseView,
    RideEventView,
    RideExplanation,
    SearchView,
)
from hexhail.kernel.errors import DomainError
from hexhail.kernel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

RIDE_ID = "gridport-01KACW4J5M0000000000000000"
T0 = 1_357_017_600_000
UTC = dt.UTC


def candidate(driver_id: str, reason: str = "", **parts: int) -> CandidateView:
    parts = parts or {"pickup_eta": -60_500}
    return CandidateView(driver_id, sum(parts.values()), parts, reason, 512.4, 61, 4_500, 900, 120)


def offer(driver_id: str, state: OfferState, shown_s: float = 1.0, closed_s: float = 2.0) -> OfferCourseView:
    shown_at_ms, closed_at_ms = (T0 + round(s * 1000) if s else 0 for s in (shown_s, closed_s))
    return OfferCourseView(f"o-{driver_id}", driver_id, 1, 1, state, T0, T0 + 5_000, shown_at_ms, closed_at_ms, 61, 512)


def event(
    after_s: float, kind: str, version: int, state: RideState | None = None, actor: str = "system", **details: str
) -> RideEventView:
    return RideEventView(version, 0, T0 + round(after_s * 1000), kind, actor, state, details)


def explanation(**changes: Any) -> RideExplanation:
    """A ride that d1 declined, d2 and d3 let expire (d3 never saw it), and d4 was not asked for."""
    search = SearchView(
        1, 1, 2, T0, "eta", "", "", "road-1", False, 812.3, True, T0,
        (candidate("d1"), candidate("d2"), candidate("d3"), candidate("d4", "OUTRANKED"), candidate("d5", "UNREACHABLE"),
         CandidateView("d6", 0, {}, "WRONG_CLASS", 77.0, 0, 0, 0, 0, left_out=True)),
    )  # fmt: skip
    made: dict[str, Any] = {
        "ride": RideView(RIDE_ID, "r1", "economy", (), RideState.EXPIRED, 5, 1_150, "USD", 1_200, T0, T0 + 5_000, None),
        "searches": (search,),
        "offers": (
            offer("d1", OfferState.DECLINED, 0.5, 2.0),
            offer("d2", OfferState.EXPIRED, 1.0, 5.0),
            offer("d3", OfferState.EXPIRED, 0.0, 5.0),
        ),
        "events": (
            event(0, "RIDE_REQUESTED", 1, RideState.SEARCHING, "rider/r1", product="economy"),
            event(0, "CANDIDATES_RANKED", 2, RideState.OFFERED),
            event(0, "OFFERS_MADE", 2, RideState.OFFERED, phase="1", driver_ids="d1, d2, d3"),
            event(2, "OFFER_DECLINED", 3, RideState.OFFERED, "driver/d1", driver_id="d1", offer_id="o-d1"),
            event(5, "OFFERS_EXPIRED", 4, RideState.EXPIRED, offer_ids="o-d2, o-d3"),
            event(5, "RIDE_EXPIRED", 4, RideState.EXPIRED),
        ),
        "absences": (AbsenceView(1, "d9", "BUSY", "gridport-other"),),
        "complete": True,
        "as_of_ms": T0 + 9_000,
        "quote_travel_times_version": "road-1",
        "surge_version": 7,
    }
    return RideExplanation(**{**made, **changes})


def read(told: RideExplanation) -> list[str]:
    """What stands on the screen, line by line."""
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(timeline(told, UTC))
    return [line.rstrip() for line in shown.get().splitlines()]


def line_with(lines: list[str], *words: str) -> str:
    (line,) = [line for line in lines if all(word in line for word in words)]
    return line


def test_a_timeline_says_who_was_asked_who_was_not_and_what_they_answered() -> None:
    lines = read(explanation())
    assert "surge 1.2x (version 7)" in line_with(lines, "road-1", "surge")
    assert "5 drivers within 812 m, ranked by eta" in line_with(lines, "search 1", "phase 1")
    assert line_with(lines, "d1", "-60.5").endswith("declined after 2.0 s")
    assert line_with(lines, "d2", "-60.5").endswith("expired after 5.0 s")
    assert line_with(lines, "d3", "-60.5").endswith("expired after 5.0 s, never shown")
    assert line_with(lines, "d4").endswith("outranked")
    assert line_with(lines, "d5").endswith("unreachable")
    assert line_with(lines, "d6").split() == ["d6", "77", "wrong", "class"]
    assert "d1 declines" in line_with(lines, "+2.000 s")
    assert "not answered in time by d2, d3 (never shown)  EXPIRED" in line_with(lines, "not answered")
    assert line_with(lines, "Why not d9").endswith("busy with gridport-other")


def test_a_state_is_told_when_it_changes() -> None:
    lines = read(explanation())
    assert [line for line in lines if line.endswith("OFFERED")] == [line_with(lines, "search 1, phase 1")]


def test_parts_of_a_score_have_columns_where_there_are_several() -> None:
    several = candidate("d1", distance=-1_000, rating=45_000)
    search = explanation().searches[0]
    assert not any("pickup eta" in line for line in read(explanation()))
    lines = read(explanation(searches=(_with(search, candidates=(several,)),)))
    assert line_with(lines, "distance", "rating", "outcome")
    assert line_with(lines, "d1", "44", "-1", "45")


def _with(search: SearchView, **changes: Any) -> SearchView:
    return SearchView(**{**{name: getattr(search, name) for name in search.__slots__}, **changes})


def test_what_was_not_as_it_should_be_is_remarked() -> None:
    search = _with(
        explanation().searches[0], complete=False, failed_policy="theirs", policy_failure="TOO_SLOW", travel_times_fell_back=True
    )
    lines = read(explanation(searches=(search,), complete=False))
    assert line_with(lines, "policy theirs failed (TOO_SLOW), so its fallback eta ranked")
    assert line_with(lines, "location did not know everything")
    assert line_with(lines, "the city's own router did not answer")
    assert line_with(lines, "what follows has gaps")


def test_an_event_of_any_other_kind_is_told_in_its_own_words() -> None:
    odd = event(3, "FARE_HALVED", 5, None, "operator/o1", reason="late", driver_id="d1")
    assert line_with(read(explanation(events=(odd,))), "fare halved by operator/o1: reason late, driver_id d1")


def typed(folder: Path, *words: str) -> tuple[int, str]:
    def run(work: Coroutine[Any, Any, Any]) -> Any:
        async def apart() -> Any:
            return await work

        try:
            with asyncio.Runner() as runner:
                return runner.run(apart())
        except (DomainError, ServiceError) as error:
            _fail(str(error))

    app = typer.Typer()
    app.command("other")(lambda: None)
    add_explain(app, lambda data_dir: Settings(data_dir=data_dir or folder), run, lambda _: nowhere(folder), lambda _: "a token")
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["explain", *words])
    return done.exit_code, done.output


def nowhere(folder: Path) -> Addresses:
    return Addresses(*(f"unix:{folder}/{name}.sock" for name in ("location", "matching", "pricing")))


@pytest.mark.parametrize(
    ("ride_id", "complaint"),
    [("nonsense", "ride_id is not an id that this system makes"), (RIDE_ID, "matching does not answer at unix:")],
)
def test_what_cannot_be_explained_is_said_in_a_line(tmp_path: Path, ride_id: str, complaint: str) -> None:
    code, output = typed(tmp_path, ride_id)
    assert code == 1
    assert complaint in output


def test_json_is_all_that_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def told(*_: object) -> RideExplanation:
        return explanation()

    monkeypatch.setattr("hexhail.cli.explain.explained", told)
    code, output = typed(tmp_path, RIDE_ID, "--json")
    assert code == 0
    document = json.loads(output)
    assert document["ride"]["state"] == "EXPIRED"
    assert document["searches"][0]["candidates"][3]["not_offered_reason"] == "OUTRANKED"
    assert document["events"][0]["state"] == "SEARCHING"
    code, output = typed(tmp_path, RIDE_ID)
    assert code == 0
    assert "outranked" in output
