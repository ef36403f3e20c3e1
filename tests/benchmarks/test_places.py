"""Where the drivers of a benchmark are: the same for each who asks, spread like the fleet, and believable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.places import BOX, JITTER_M, STARTS, WANDER_M, Drivers, manhattan_spread
from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import E7
from location.freshness import BeliefParams

if TYPE_CHECKING:
    from pathlib import Path


def some_drivers(tmp_path: Path, count: int = 500) -> Drivers:
    return Drivers(manhattan_spread(tmp_path).draw(count, generator(1, "homes")), 1)


def test_a_step_is_the_same_for_each_who_asks(tmp_path: Path) -> None:
    ours, theirs = some_drivers(tmp_path), some_drivers(tmp_path)
    assert all((a == b).all() for a, b in zip(ours.at(7), theirs.at(7), strict=True))
    assert any((a != b).any() for a, b in zip(ours.at(7), ours.at(8), strict=True))


def test_nobody_goes_farther_than_belief_allows_in_no_time_at_all(tmp_path: Path) -> None:
    drivers = some_drivers(tmp_path)
    for step in range(5):
        lat, lng = (column / E7 for column in drivers.at(step))
        assert geo.distances_m(lat, lng, drivers.homes[:, 0], drivers.homes[:, 1]).max() <= WANDER_M + 0.5
    assert BeliefParams().position_slack_m >= 2 * (WANDER_M + 0.5)


def test_each_driver_is_at_its_own_step(tmp_path: Path) -> None:
    drivers = some_drivers(tmp_path, 10)
    steps = np.arange(10) % 3
    expected = [drivers.at(step) for step in range(3)]
    found = drivers.at_steps(steps)
    assert [found[driver_id] for driver_id in drivers.ids] == [
        (int(expected[step][0][row]), int(expected[step][1][row])) for row, step in enumerate(steps.tolist())
    ]


def test_homes_lie_about_the_places_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / STARTS
    file.parent.mkdir()
    file.write_text("vehicle_id,lat,lon\nv0,40.80,-73.94\nv1,40.75,-73.99\n")
    spread = manhattan_spread(tmp_path)
    homes = spread.draw(1_000, generator(1))
    from_either_m = np.stack([geo.distances_m(homes[:, 0], homes[:, 1], lat, lng) for lat, lng in spread.places])
    assert spread.name == "nyc_1200.csv"
    assert np.median(from_either_m.min(axis=0)) < 2 * JITTER_M
    assert (from_either_m.argmin(axis=0) == 0).any()
    assert (from_either_m.argmin(axis=0) == 1).any()


def test_without_the_file_drivers_are_on_an_island_of_our_own_and_the_report_can_say_so(tmp_path: Path) -> None:
    spread = manhattan_spread(tmp_path)
    south, west, north, east = BOX
    lat, lng = spread.draw(5_000, generator(1)).T
    assert spread.name == "synthetic island"
    assert ((lat > south) & (lat < north) & (lng > west) & (lng < east)).all()
