"""Files of taxi rides: what becomes a request, and why a row does not."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing.city import router_for
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables
from simulator.requests import RequestsFileError, RideRequests, Window, load_taxi_requests

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats

ZONE = "America/New_York"
GRAPH = grid_graph(GridParams(40.5, -74.0, rows=11, columns=11, jitter=0.0))
ROUTER = RoadRouter(GRAPH, build_tables(GRAPH), RoadParams())
WINDOW = Window(time(0, 20))

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("HEXHAIL_DATA") or REPOSITORY.parent / "shared" / "data")
needs_data = pytest.mark.skipif(not (DATA / "nyc_rides").is_dir(), reason="HEXHAIL_DATA names no folder with nyc_rides/")


def row(
    at: str = "00:21:07", begins: bool = True, a: str = "-73.999,40.501", b: str = "-73.991,40.507", passengers: str = "2"
) -> str:
    kind = "START" if begins else "END"
    return f"1,{kind},2013-01-01 {at},1970-01-01 00:00:00,{a},{b},{passengers},201,201"


def write(path: Path, *rows: str) -> Path:
    text = "".join(f"{line}\n" for line in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["rides.csv", "rides.csv.gz", "rides"])
def test_rows_that_begin_a_ride_become_requests_by_time(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, row("00:25:30"), row(), row("00:22:01", begins=False), row("00:22:02", passengers="1"))

    requests, dropped = load_taxi_requests(path, WINDOW, ZONE, ROUTER)

    assert requests.at_s.tolist() == [67.0, 122.0, 330.0]
    assert requests.passengers.tolist() == [2, 1, 2]
    assert requests.pickup[0].tolist() == [40.501, -73.999]
    assert requests.dropoff[0].tolist() == [40.507, -73.991]
    assert requests.start_ms == 1_357_017_600_000
    assert dropped == {}


def test_every_row_left_out_is_counted_by_its_reason(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rides.csv",
        row(),
        "1,START,2013-01-01 00:21:07",
        row().replace("START", "PAUSE"),
        row(a="west,40.501"),
        row(a="nan,40.501"),
        row(at="25:00:00"),
        row().replace("2013-01-01 00:21:07", "0001-01-01 00:00:00"),
        row(passengers="0"),
        row(passengers="two"),
        "\ufffd\x00",
        row(a="0,0"),
        row(b="-73.99,0.0"),
        row(a="-73.99,91"),
        row(b="-273.99,40.5"),
        row(b="-73.999,40.5012"),
        row(a="-73.90,40.501"),
        row(b="-73.90,40.501"),
    )

    requests, dropped = load_taxi_requests(path, WINDOW, ZONE, ROUTER)

    assert len(requests) == 1
    assert dropped == {"malformed": 9, "zero_coordinates": 2, "out_of_range": 2, "zero_trip": 1, "off_network": 2}


def test_an_end_outside_the_service_area_is_counted(tmp_path: Path) -> None:
    def north(places: Floats) -> Bools:
        return np.asarray(places[:, 0] > 40.504, dtype=np.bool_)

    path = write(tmp_path / "rides.csv", row(), row(a="-73.992,40.5055"))

    requests, dropped = load_taxi_requests(path, WINDOW, ZONE, ROUTER, north)

    assert (len(requests), dropped) == (1, {"outside_area": 1})


def test_rows_outside_the_window_are_not_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "rides.csv", row("00:19:59"), row("00:20:01"), row("00:22:59"), row("00:23:01", a="0,0"))

    requests, dropped = load_taxi_requests(path, replace(WINDOW, minutes=3), ZONE, ROUTER)

    assert requests.at_s.tolist() == [1.0, 179.0]
    assert dropped == {}


def test_minute_stamps_are_spread_within_their_minute_by_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "rides.csv", *[row("00:21:00")] * 200, row("00:21:30"))

    first, again, other = (load_taxi_requests(path, replace(WINDOW, seed=seed), ZONE, ROUTER)[0].at_s for seed in (1, 1, 2))

    assert ((first >= 60) & (first < 120)).all()
    assert len(np.unique(first)) == 201
    assert 90.0 in first
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_smaller_sample_is_part_of_a_larger_one(tmp_path: Path) -> None:
    rows = [row(f"00:{21 + i // 59}:{1 + i % 59:02}") for i in range(500)]
    path = write(tmp_path / "rides.csv", *rows)

    small, large = (
        set(load_taxi_requests(path, replace(WINDOW, sample=share), ZONE, ROUTER)[0].at_s.tolist()) for share in (0.2, 0.6)
    )

    assert small < large
    assert 60 < len(small) < 140
    assert 250 < len(large) < 350


def test_local_time_is_the_citys(tmp_path: Path) -> None:
    path = write(tmp_path / "rides.csv", row())

    berlin, _ = load_taxi_requests(path, WINDOW, "Europe/Berlin", ROUTER)

    assert berlin.at_s.tolist() == [67.0]
    assert berlin.start_ms == 1_356_996_000_000


def test_a_list_of_requests_is_known_by_its_header(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.csv",
        "request_id,o_lat,o_lon,d_lat,d_lon,departure_time,passengers",
        "0,40.501,-73.999,40.507,-73.991,2014-12-21 08:00:05,3",
        "1,40.501,-73.999,40.507,-73.991,2014-12-21 08:00:05",
    )

    requests, dropped = load_taxi_requests(path, Window(time(8)), ZONE, ROUTER)

    assert requests.at_s.tolist() == [5.0]
    assert requests.pickup.tolist() == [[40.501, -73.999]]
    assert requests.passengers.tolist() == [3]
    assert dropped == {"malformed": 1}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rides.csv.gz", None, "is not there"),
        ("rides.csv.gz", b"a,b\n", "not compressed"),
        ("rides.csv.gz", gzip.compress(row().encode(), mtime=0)[:-9], "damaged"),
        ("rides.csv.gz", gzip.compress(row().encode(), mtime=0)[:10] + b"\xff" * 40, "damaged"),
        ("rides.csv", b"", "no row of a known format"),
        ("rides.csv", b"name,age\nx,3\n", "no row of a known format"),
        ("rides.csv", b'{"a": 1}', "no row of a known format"),
        ("rides.csv", bytes(range(256)), "no row of a known format"),
        ("rides.csv", row(begins=False).encode(), "no ride that begins"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RequestsFileError, match=problem) as caught:
        load_taxi_requests(path, WINDOW, ZONE, ROUTER)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.text(max_size=60), st.lists(st.text(max_size=9), min_size=11, max_size=11).map(",".join))))
def test_no_row_breaks_the_loader(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "rides.csv"
    path.write_text("\n".join([row(), *lines]), encoding="utf-8", errors="replace")

    requests, dropped = load_taxi_requests(path, WINDOW, ZONE, ROUTER)

    assert len(requests) >= 1
    assert set(dropped) <= {"malformed"}


@pytest.mark.parametrize(
    ("field", "value"), [("minutes", 0.0), ("minutes", float("nan")), ("sample", 0.0), ("sample", 1.1), ("seed", -1)]
)
def test_unfit_windows_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(WINDOW, **{field: value})


def test_requests_are_in_the_order_of_time() -> None:
    places = np.zeros((2, 2))

    with pytest.raises(ValueError, match="at_s falls"):
        RideRequests(np.array([2.0, 1.0]), places, places, np.ones(2, dtype=np.int64))


@needs_data
def test_new_years_night_has_a_thousand_requests_in_three_minutes(tmp_path: Path) -> None:
    table = {"kind": "road", "file": "manhattan/manhattan_network.json", "time_factor": 2.2}
    router = router_for(table, ZONE, DATA, tmp_path)

    requests, dropped = load_taxi_requests(DATA / "nyc_rides" / "rides.csv.gz", replace(WINDOW, minutes=3), ZONE, router)

    assert 1_150 < len(requests) < 1_350
    assert set(dropped) == {"off_network", "zero_coordinates", "zero_trip"}
    assert np.isfinite(router.pair_times_s(requests.pickup, requests.dropoff, 0)).all()
