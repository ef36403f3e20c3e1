"""What one sees of a run: a frame on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from hexhail.client import CallCounts
from hexhail.kernel.geo import Place, cell_of
from simulator.chart import Mark, box_around, braille
from simulator.ledger import Ledger, RideRecord
from simulator.params import LiveParams
from simulator.progress import LiveState
from simulator.summary import rides_now, summary_of
from simulator.view import CityFrame, PlainView, TerminalView, frame, plain_line, summary_table, view_for

PLACES = np.array([[40.49, -74.01], [40.51, -73.99]])
CITY = CityFrame("Gridport", "America/New_York", PLACES)


def state(**changed: object) -> LiveState:
    ledger = Ledger()
    ledger.rides.append(RideRecord("r1", Place(40.5, -74.0), 1.0, named_s=2.5))
    ledger.rides.append(RideRecord("r2", Place(40.5, -74.0), 1.0))
    values: dict[str, object] = {
        "phase": "open",
        "city_ms": 1_357_017_600_000,
        "elapsed_s": 61.0,
        "total_s": 120.0,
        "rides": rides_now(ledger),
        "searching": 1,
        "on_ride": 1,
        "fixes_per_s": 30.4,
        "calls_ok": 100,
        "refused": 3,
        "rpc_errors": 0,
        "drivers": np.array([[40.495, -74.005], [40.505, -73.995]]),
        "busy": np.array([True, False]),
        "open_pickups": np.array([[40.5, -74.0]]),
        "surging": {cell_of(Place(40.5, -74.0), 8): 2500},
        "surge_max_milli": 2500,
        "cells_surging": 4,
        "news": ((1_357_017_600_000, "fleet.d00001 drives r1"),),
    }
    return LiveState(**{**values, **changed})  # type: ignore[arg-type]


def rendered(*what: object, colour: bool = False) -> str:
    console = Console(file=io.StringIO(), width=130, force_terminal=colour, color_system="256" if colour else None)
    for one in what:
        console.print(one)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_frame_names_city_time_and_figures() -> None:
    text = rendered(frame(CITY, state()))
    for expected in ("Gridport", "00:20:00", "Tue 01 Jan 2013", "1:01 of 2:00", "fleet.d00001 drives r1", "1.5 s", "2.5x"):
        assert expected in text
    assert any(0x2801 <= ord(sign) <= 0x28FF for sign in text)


def test_a_frame_of_a_run_that_has_not_begun_is_drawn_as_well() -> None:
    empty = state(
        rides=rides_now(Ledger()), drivers=np.empty((0, 2)), busy=np.empty(0, dtype=np.bool_), open_pickups=np.empty((0, 2)),
        surging={}, surge_max_milli=None, cells_surging=0, news=(), total_s=None,
    )  # fmt: skip
    text = rendered(frame(CITY, empty))
    assert "Ctrl-C" in text
    assert "2.5x" not in text


def test_surging_cells_are_coloured() -> None:
    assert rendered(frame(CITY, state()), colour=True) != rendered(frame(CITY, state(surging={})), colour=True)


def test_a_plain_line_says_it_all_in_one() -> None:
    line = plain_line(CITY, state())
    assert "\n" not in line
    for expected in ("Gridport 00:20:00", "2 requests", "1 matched", "1 searching", "30 fixes/s", "surge 2.5x in 1 cells"):
        assert expected in line


def test_the_view_suits_the_console() -> None:
    pipe, terminal = Console(file=io.StringIO()), Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(view_for(CITY, pipe), PlainView)
    assert isinstance(view_for(CITY, terminal), TerminalView)


@pytest.mark.parametrize("terminal", [False, True])
def test_views_show_what_they_are_told(*, terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=130, height=40, force_terminal=terminal)
    with view_for(CITY, console) as view:
        view.update(state())
    assert isinstance(console.file, io.StringIO)
    assert "Gridport" in console.file.getvalue()


def test_the_final_table_names_every_figure_and_unknown_ones_as_such() -> None:
    ledger = Ledger()
    params = LiveParams(city="gridport", drivers=1)
    summary = summary_of(rides_now(ledger), ledger, CallCounts(), params, cut_off=0, seconds=0.0, rows_dropped={"malformed": 2})
    text = rendered(summary_table(summary))
    for expected in ("0 = 0 matched", "p50 -", "unknown", "double assignments", "2 malformed"):
        assert expected in text


def test_north_is_up_and_east_is_right() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    north_west, south_east = np.array([[0.99, 0.01]]), np.array([[0.01, 0.99]])
    lines = braille(box, 4, 2, [Mark(north_west, ""), Mark(south_east, "")], {}).plain.split("\n")
    assert lines == ["⠁⠀⠀⠀", "⠀⠀⠀⢀"]


def test_points_outside_the_box_are_left_out() -> None:
    drawn = braille((0.0, 0.0, 1.0, 1.0), 3, 3, [Mark(np.array([[2.0, 0.5], [0.5, -1.0], [0.0, 0.5]]), "")], {})
    assert set(drawn.plain) == {"⠀", "\n"}


def test_the_box_keeps_the_proportions_of_the_ground() -> None:
    south, west, north, east = box_around(PLACES, 40, 20)
    height_m, width_m = (north - south) * 111_195, (east - west) * 111_195 * np.cos(np.radians(40.5))
    assert height_m == pytest.approx(width_m, rel=0.01)
    assert south < 40.49
    assert north > 40.51
    assert west < -74.01
    assert east > -73.99
