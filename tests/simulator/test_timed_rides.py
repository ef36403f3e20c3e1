"""Files of rides whose durations are known."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from simulator.requests import RequestsFileError
from simulator.timed_rides import load_timed_rides

ZONE = "America/New_York"
REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("HEXHAIL_DATA") or REPOSITORY.parent / "shared" / "data")
needs_data = pytest.mark.skipif(not (DATA / "nyc_rides").is_dir(), reason="HEXHAIL_DATA names no folder with nyc_rides/")
MIDNIGHT_MS = 1_357_016_400_000  # 2013-01-01 in New York


def event(ride: str, begins: bool, at: str, a: str = "-73.999,40.501", b: str = "-73.991,40.507") -> str:
    return f"{ride},{'START' if begins else 'END'},2013-01-01 {at},1970-01-01 00:00:00,{a},{b},1,7,7"


def write(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")
    return path


def test_a_beginning_and_an_end_make_a_ride(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rides.csv",
        event("b", True, "00:02:00"),
        event("a", True, "00:01:00"),
        event("b", False, "00:05:00"),
        event("a", False, "00:11:30"),
    )

    rides, dropped = load_timed_rides(path, ZONE)

    assert (rides.at_ms - MIDNIGHT_MS).tolist() == [60_000, 120_000]
    assert rides.taken_s.tolist() == [630.0, 180.0]
    assert rides.origins[0].tolist() == [40.501, -73.999]
    assert rides.destinations[0].tolist() == [40.507, -73.991]
    assert dropped == {}


def test_what_cannot_be_used_is_counted_by_reason(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rides.csv",
        event("a", True, "00:01:00"),
        event("a", True, "00:02:00"),
        event("a", False, "00:09:00"),
        event("b", True, "00:03:00", a="0,0"),
        event("c", True, "00:03:00", b="-73.9,140.0"),
        event("d", True, "00:04:00"),
        event("e", False, "00:05:00"),
        event("f", True, "00:06:00"),
        event("f", False, "00:06:00"),
        "no ride at all",
    )

    rides, dropped = load_timed_rides(path, ZONE)

    assert rides.taken_s.tolist()[0] == 480.0
    assert all(math.isnan(taken) for taken in rides.taken_s.tolist()[1:])
    assert len(rides) == 3
    assert dropped == {"ends_only": 1, "malformed": 1, "out_of_range": 1, "repeated": 1, "zero_coordinates": 1}


def test_a_list_may_say_how_long_its_rides_took(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.csv",
        "request_id,o_lat,o_lon,d_lat,d_lon,departure_time,passengers,duration_s",
        "1,40.501,-73.999,40.507,-73.991,2013-01-01 00:01:00,1,600.5",
        "2,40.501,-73.999,40.507,-73.991,2013-01-01 00:02:00,1,0",
    )
    rides, _ = load_timed_rides(path, ZONE)
    assert rides.taken_s.tolist()[0] == 600.5
    assert math.isnan(rides.taken_s.tolist()[1])


def test_a_file_without_durations_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rides.csv", event("a", True, "00:01:00"))
    with pytest.raises(RequestsFileError, match="how long it took"):
        load_timed_rides(path, ZONE)


@needs_data
def test_the_real_file_holds_what_its_page_says() -> None:
    rides, dropped = load_timed_rides(DATA / "nyc_rides" / "rides.csv.gz", ZONE)
    assert len(rides) + dropped["zero_coordinates"] == 28_999
    assert int(np.isfinite(rides.taken_s).sum()) == 21_357
    assert np.nanmedian(rides.taken_s) == 548.0
