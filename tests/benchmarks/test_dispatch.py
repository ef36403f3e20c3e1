"""An hour replayed on made-up streets: nobody is lost or in two places, and batches look at all rides at once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.dispatch import DispatchParams
from benchmarks.dispatch_batched import Batched
from benchmarks.dispatch_figures import dispatch_faults, interval, measured, pickup_of_both_s
from benchmarks.dispatch_phased import Phased
from benchmarks.dispatch_replay import NEVER, Outcome, Replay
from benchmarks.dispatch_world import Demand, Fleet, Streets
from benchmarks.people import People, PeopleParams
from hexhail.cli.app import _check_json, _run
from hexhail.cli.bench import bench_commands
from hexhail.kernel.settings import Settings
from matching.assignment import AssignmentParams
from matching.model import RideState
from matching.offers import OfferParams, PhaseParams
from matching.params import BatchParams, Dispatch, MatchingParams
from matching.ranking import RankingParams
from routing.grid import GridParams, grid_graph
from routing.tables import build_tables

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.dispatch_replay import Dispatcher

DISPATCHERS = ("batched", "eta", "classic")
WILLING = PeopleParams(decline_share=0.0, think_s=(1.0, 1.0))


def town() -> tuple[Streets, int]:
    graph = grid_graph(GridParams(40.5, -74.0, rows=9, columns=9, block_m=250.0))
    tables = build_tables(graph)
    return Streets(graph.places(), tables.times_s, tables.distances_m, time_factor=2.0), graph.n_nodes


def a_few_minutes(n_nodes: int, requests: int, seed: int) -> Demand:
    rng = np.random.default_rng(seed)
    at_ms = np.sort(rng.integers(0, 600_000, requests))
    pickups = rng.integers(0, n_nodes, requests)
    return Demand(at_ms, pickups, (pickups + rng.integers(1, n_nodes, requests)) % n_nodes)


def avenue(*places_km: float) -> Streets:
    """Junctions along one straight street, driven at 10 m/s."""
    at_m = 1_000.0 * np.array(places_km)
    apart_m = np.abs(at_m[:, None] - at_m[None, :]).astype(np.float32)
    return Streets(np.column_stack((40.5 + at_m / 111_195.0, np.full(len(at_m), -74.0))), apart_m / 10.0, apart_m)


def dispatched(dispatch: str, sizes: int = 3) -> tuple[MatchingParams, Dispatcher]:
    phases = (PhaseParams(sizes, 5.0, 2_000.0), PhaseParams(sizes, 5.0, 50_000.0))
    if dispatch == "batched":
        batch = BatchParams(assignment=AssignmentParams(pickup_limit_s=3_000.0, waiting_s=5_000.0))
        return MatchingParams(dispatch=Dispatch.BATCHED, batch=batch), Batched(batch)
    params = MatchingParams(offers=OfferParams(phases=phases), ranking=RankingParams(policy=dispatch))
    return params, Phased(params)


def replay(dispatch: str, streets: Streets, demand: Demand, starts: list[int], people: People, sizes: int = 3) -> Outcome:
    params, dispatcher = dispatched(dispatch, sizes)
    fleet = Fleet(streets, np.array(starts), people, params.records)
    return Replay(streets, demand, fleet, people, params.lifecycle, dispatcher).run()


@pytest.mark.parametrize("dispatch", DISPATCHERS)
@pytest.mark.parametrize("drivers", [4, 15, 81])
def test_every_request_is_served_or_expires_and_no_driver_has_two_rides(dispatch: str, drivers: int) -> None:
    streets, n_nodes = town()
    demand = a_few_minutes(n_nodes, 80, drivers)
    outcome = replay(dispatch, streets, demand, list(range(drivers)), People(drivers))

    assert dispatch_faults(dispatch, outcome) == []
    assert set(outcome.states) <= {RideState.COMPLETED, RideState.EXPIRED}
    figures = measured(outcome, 600_000)
    assert figures["served"] + figures["expired"] == 1.0
    assert figures["served"] == 1.0 if drivers == 81 else figures["served"] < 1.0
    assert 0 < figures["utilisation"] <= 1


@pytest.mark.parametrize("dispatch", DISPATCHERS)
def test_the_same_seed_gives_the_same_hour_and_another_seed_another(dispatch: str) -> None:
    streets, n_nodes = town()
    demand = a_few_minutes(n_nodes, 60, 1)
    first, again, other = (replay(dispatch, streets, demand, list(range(12)), People(seed)) for seed in (1, 1, 2))
    for name in ("accepted_ms", "arrived_ms", "completed_ms", "driver", "offers", "deadhead_m"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.accepted_ms.tolist() != other.accepted_ms.tolist()


def test_people_are_the_same_whoever_asks_and_in_whatever_order() -> None:
    pairs = [(ride, driver) for ride in range(40) for driver in range(25)]
    answers = {pair: People(7).answer(*pair) for pair in pairs}
    assert {pair: People(7).answer(*pair) for pair in reversed(pairs)} == answers
    declined = sum(not accepts for accepts, _ in answers.values())
    assert 60 <= declined <= 140, "a tenth of a thousand"
    assert all(500 <= after_ms <= 3_000 for _, after_ms in answers.values())


def test_batches_cross_no_ways() -> None:
    """The first rider's nearest driver is the only one near the second rider."""
    streets = avenue(0.0, 10.0, 4.0, -5.0, 30.0)
    demand = Demand(np.array([100, 200]), np.array([2, 3]), np.array([4, 4]))
    batched, greedy = (replay(name, streets, demand, [0, 1], People(1, WILLING), 1) for name in ("batched", "eta"))

    assert greedy.driver.tolist() == [0, 1]
    assert batched.driver.tolist() == [1, 0]
    assert greedy.deadhead_m.sum() == 19_000
    assert batched.deadhead_m.sum() == 11_000
    assert measured(batched, 600_000)["pickup_s"] == 550.0


def test_a_driver_who_declines_leaves_the_ride_to_the_next_window() -> None:
    streets = avenue(0.0, 1.0, 2.0, 9.0)
    demand = Demand(np.array([100]), np.array([0]), np.array([3]))
    unwilling = next(seed for seed in range(1_000) if [People(seed).answer(0, driver)[0] for driver in (0, 1)] == [False, True])
    outcome = replay("batched", streets, demand, [1, 2], People(unwilling))
    _, first_ms = People(unwilling).answer(0, 0)
    _, second_ms = People(unwilling).answer(0, 1)

    assert outcome.driver.tolist() == [1]
    assert outcome.offers.tolist() == [2]
    next_window_ms = (2_000 + first_ms) // 2_000 * 2_000 + 2_000
    assert outcome.accepted_ms.tolist() == [next_window_ms + second_ms]


@pytest.mark.parametrize("dispatch", DISPATCHERS)
def test_a_ride_that_nobody_can_reach_expires(dispatch: str) -> None:
    streets = avenue(0.0, 1.0, 99.0)
    demand = Demand(np.array([100]), np.array([0]), np.array([1]))
    outcome = replay(dispatch, streets, demand, [2, 2], People(1))
    assert outcome.states == (RideState.EXPIRED,)
    assert outcome.driver.tolist() == [NEVER]
    assert outcome.offers.tolist() == [0]


def served_twice() -> Outcome:
    """Two rides of one driver, one after the other."""
    return Outcome(
        requested_ms=np.array([0, 10]),
        accepted_ms=np.array([5, 60]),
        arrived_ms=np.array([20, 80]),
        completed_ms=np.array([50, 99]),
        driver=np.array([3, 3]),
        states=(RideState.COMPLETED, RideState.COMPLETED),
        offers=np.array([1, 1]),
        deadhead_m=np.array([100.0, 300.0]),
        drivers=4,
    )


def test_what_cannot_be_is_a_fault() -> None:
    fine = served_twice()
    assert dispatch_faults("x", fine) == []
    assert "while on another" in dispatch_faults("x", replace(fine, accepted_ms=np.array([5, 49])))[0]
    assert "not over" in dispatch_faults("x", replace(fine, states=(RideState.COMPLETED, RideState.ACCEPTED)))[0]
    assert "without a driver" in dispatch_faults("x", replace(fine, driver=np.array([3, NEVER])))[0]
    assert "out of order" in dispatch_faults("x", replace(fine, arrived_ms=np.array([20, 55])))[0]
    assert "2 requests, 1 rides" in dispatch_faults("x", replace(fine, states=(RideState.COMPLETED,)))[0]


def test_figures_are_means_of_rides_served_and_shares_of_all() -> None:
    fine = served_twice()
    lost = replace(
        fine,
        accepted_ms=np.array([5, NEVER]),
        arrived_ms=np.array([20, NEVER]),
        completed_ms=np.array([50, NEVER]),
        driver=np.array([3, NEVER]),
        states=(RideState.COMPLETED, RideState.EXPIRED),
        deadhead_m=np.array([100.0, 0.0]),
    )
    figures = measured(lost, 100)
    assert figures["pickup_s"] == 0.015
    assert figures["wait_s"] == 0.020
    assert (figures["served"], figures["expired"]) == (0.5, 0.5)
    assert figures["deadhead_km"] == 0.1
    assert figures["utilisation"] == 45 / (4 * 100)
    assert pickup_of_both_s(fine, lost) == (0.015, 0.015)


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    alone = interval([5.0])
    assert (alone.low, alone.high) == (5.0, 5.0)


CITY = """
[city]
id = "testville"
name = "Testville"
time_zone = "America/New_York"
currency_code = "USD"
capabilities = ["economy"]
[city.area]
polygon = [[40.47, -74.03], [40.47, -73.97], [40.53, -73.97], [40.53, -74.03]]
[[city.products]]
id = "economy"
capabilities = ["economy"]
[routing]
kind = "grid"
south_west_lat = 40.4865
south_west_lng = -74.0177
rows = 15
columns = 15
[simulator]
source = "rides"
requests_file = "rides.csv"
"""


def typed(tmp_path: Path, *words: str) -> tuple[int, str]:
    settings = Settings(data=tmp_path, cities_dir=tmp_path, cache_dir=tmp_path / "cache")
    app = bench_commands(lambda _: settings, _check_json, _run)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["dispatch", *words])
    return done.exit_code, done.output


def write_rides(path: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    lat, lng = rng.uniform(40.487, 40.498, (2, count)), rng.uniform(-74.017, -74.003, (2, count))
    lines = ["o_lat,o_lon,d_lat,d_lon,departure_time,passengers"]
    for row, second in enumerate(np.sort(rng.integers(1, 600, count)).tolist()):
        at = f"2024-05-01 12:{second // 60:02}:{second % 60:02}"
        lines.append(f"{lat[0, row]:.6f},{lng[0, row]:.6f},{lat[1, row]:.6f},{lng[1, row]:.6f},{at},1")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_command_compares_prints_draws_and_writes(tmp_path: Path) -> None:
    (tmp_path / "testville.toml").write_text(CITY, encoding="utf-8")
    write_rides(tmp_path / "rides.csv", 50)
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.png"
    options = ("--start", "12:00", "--minutes", "10", "--sample", "1", "--drivers", "5", "--drivers", "30", "--seeds", "2")

    code, output = typed(tmp_path, "--city", "testville", *options, "--json", str(figures), "--plot", str(picture))

    assert code == 0, output
    told = json.loads(figures.read_text())
    assert [supply["drivers"] for supply in told["supplies"]] == [5, 30]
    assert not told["faults"]
    assert told["phased_pickup_s"] > 0
    assert told["batched_pickup_s"] > 0
    assert len(told["samples"]["batched_vs_phased"]) == 2
    for name in ("batched", "eta", "classic", "single", "near"):
        assert told["supplies"][0][name]["served"] < told["supplies"][1][name]["served"]
        assert name in output
    assert "12:00" in told["parameters"]["start"]
    assert told["parameters"]["batch"]["window_s"] == 2.0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--city", "gridport"), "no real requests"),
        (("--city", "manhattan"), "set HEXHAIL_DATA"),
        (("--city", "atlantis"), "atlantis"),
        (("--start", "noon"), "noon"),
        (("--sample", "0"), "sample"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_a_line(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    code, output = typed(tmp_path, *words)
    assert code in {1, 2}
    assert complaint in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("field", "odd"),
    [("drivers", ()), ("drivers", (0,)), ("repeats", 0), ("contenders", ("eta",)), ("sample", 2.0)],
)
def test_a_run_that_compares_nothing_is_refused(field: str, odd: Any) -> None:
    with pytest.raises(ValueError, match=field):
        DispatchParams(time(0, 0), **{field: odd})


@pytest.mark.parametrize(("field", "odd"), [("decline_share", 1.5), ("think_s", (3.0, 1.0)), ("rating_milli", (-1.0, 5.0))])
def test_people_who_cannot_be_are_refused(field: str, odd: Any) -> None:
    with pytest.raises(ValueError, match=field):
        PeopleParams(**{field: odd})
