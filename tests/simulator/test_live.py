"""A live run: people who are clients, counted honestly, and a city left empty behind them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.client import Addresses, RpcError
from hexhail.kernel.geo import Place
from routing.crow import CrowParams, CrowRouter
from simulator.live import LiveRun, run_live
from simulator.params import LiveParams
from simulator.requests import RideRequests
from simulator.traffic import TrafficParams
from tests.simulator.fake_city import COMPLETED, FakeCity, token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from simulator.progress import LiveState

MIDDLE = np.array([40.5, -74.0])
ROUTER = CrowRouter(CrowParams(1.3, (150.0,) * 24, "America/New_York"))
PARAMS = LiveParams(
    city="gridport",
    seed=3,
    minutes=0.1,
    drivers=12,
    single_stream_drivers=4,
    fleet_streams=2,
    report_interval_s=1.0,
    think_s=(0.05, 0.2),
    boarding_s=(0.1, 0.2),
    wind_down_s=8.0,
    channels_per_service=2,
)


ENDLESS = replace(PARAMS, minutes=None)


def starts(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return MIDDLE + np.column_stack((np.linspace(-0.001, 0.001, count), np.zeros(count)))


def requests(count: int, within_s: float) -> RideRequests:
    at_s = np.linspace(0, within_s, count)
    pickup = MIDDLE + np.column_stack((np.zeros(count), np.linspace(-0.0005, 0.0005, count)))
    return RideRequests(at_s, pickup, pickup + 0.0002, np.ones(count, dtype=np.int64))


class Watcher:
    """A view that keeps what it is shown."""

    period_s = 0.2

    def __init__(self) -> None:
        self.states: list[LiveState] = []

    def update(self, state: LiveState) -> None:
        self.states.append(state)


async def test_a_small_city_lives_and_leaves_nothing_behind() -> None:
    city, watcher = FakeCity(), Watcher()
    stop = asyncio.Event()
    async with (
        city.open() as addresses,
        stopping(stop, lambda: bool(watcher.states) and watcher.states[-1].rides.completed == 10),
    ):
        summary, intervals = await run_live(
            ENDLESS, requests(10, 1.5), starts(12), ROUTER, addresses, token, stop=stop, progress=watcher
        )
    values = summary.as_json()
    assert values["requests"] == 10 == values["matched"] + values["cancelled"] + values["expired"] + values["open_at_end"]
    assert values["matched"] == 10
    assert values["completed"] == 10
    assert values["match_ms"]["p50"] > 0
    assert values["pickup_s"]["p95"] is not None
    assert values["eta_error_s"]["n"] >= 10
    assert values["trip_error_s"]["n"] == 10
    assert values["rpc_errors"] == {}
    assert values["streams_cut_off"] == 0
    assert values["double_assignments"] == 0
    assert len(intervals) == 10
    assert all(interval.end_ms is not None for interval in intervals)
    assert (values["surge_max"], values["cells_surging"]) == (1.5, 1)
    assert values["parameters"]["decline_share"] == 0.1
    assert city.matching.online == set()
    assert city.matching.sessions == {}
    assert city.matching.on_ride == {}
    phases = [state.phase for state in watcher.states]
    assert "open" in phases
    assert max(state.on_ride for state in watcher.states) > 0


async def test_every_driver_reports_once_in_every_interval_some_by_themselves() -> None:
    city, stop = FakeCity(), asyncio.Event()

    def reports() -> list[int]:
        return [len(fixes) for fixes in (*city.location.singles.values(), *city.location.columns.values())]

    async with city.open() as addresses, stopping(stop, lambda: len(reports()) == 12 and min(reports()) >= 4):
        summary, _ = await run_live(ENDLESS, requests(4, 1.0), starts(12), ROUTER, addresses, token, stop=stop)
    values = summary.as_json()
    ids = PARAMS.driver_ids()
    assert set(city.location.singles) == set(ids[:4])
    assert set(city.location.columns) == set(ids[4:])
    assert values["fixes_sent"] == values["fixes_accepted"] == sum(reports())
    for fixes in city.location.columns.values():
        assert [sequence for sequence, _, _ in fixes] == list(range(1, len(fixes) + 1))


async def test_a_driver_that_reports_by_itself_does_so_as_often_as_it_is_told() -> None:
    city, stop = FakeCity(), asyncio.Event()
    often, seldom, *others = PARAMS.driver_ids()[:4]
    city.location.interval_ms = {often: 300, seldom: 600_000}

    def reports(driver_id: str) -> int:
        return len(city.location.singles[driver_id])

    def told() -> bool:
        usual = [reports(driver_id) for driver_id in others]
        return min(usual) >= 4 and reports(often) >= 2 * max(usual)

    async with city.open() as addresses, stopping(stop, told):
        await run_live(ENDLESS, requests(1, 1.0), starts(12), ROUTER, addresses, token, stop=stop)
    assert told()
    assert reports(seldom) <= 2


async def test_a_drive_takes_what_the_streets_make_it_not_what_routing_says() -> None:
    here, there = Place(40.500, -74.000), Place(40.503, -74.002)
    addresses = Addresses("unix:/nowhere/a", "unix:/nowhere/b", "unix:/nowhere/c")

    async def drives_s(traffic: TrafficParams | None, times: int) -> list[float]:
        run = LiveRun(replace(PARAMS, traffic=traffic), requests(1, 0.0), starts(12), ROUTER, addresses, token)
        found = [run.world.way(7, here, there).duration_s for _ in range(times)]
        await run.world.channels.close()
        return found

    said_s = ROUTER.route(here, there, 0).duration_s
    assert await drives_s(None, 2) == [said_s, said_s]
    assert await drives_s(TrafficParams(usual=3.0, place_sigma=0.0, drive_sigma=0.0), 1) == [pytest.approx(3 * said_s)]
    assert len(set(await drives_s(TrafficParams(place_sigma=0.0), 5))) == 5


async def test_told_to_stop_it_winds_down_at_once_with_a_summary() -> None:
    city, stop = FakeCity(), asyncio.Event()
    async with city.open() as addresses, stopping(stop, lambda: len(city.matching.rides) >= 3):
        summary, intervals = await run_live(ENDLESS, requests(30, 90.0), starts(12), ROUTER, addresses, token, stop=stop)
    values = summary.as_json()
    assert 3 <= values["requests"] < 30
    assert values["requests"] == values["matched"] + values["cancelled"] + values["expired"] + values["open_at_end"]
    assert values["rpc_errors"] == {}
    assert values["streams_cut_off"] == 0
    assert city.matching.online == set()
    assert all(interval.end_ms is not None for interval in intervals)


async def test_stopped_before_the_drivers_are_online_it_still_ends_in_order() -> None:
    city, stop = FakeCity(), asyncio.Event()
    stop.set()
    async with city.open() as addresses:
        summary, _ = await run_live(PARAMS, requests(3, 1.0), starts(12), ROUTER, addresses, token, stop=stop)
    assert summary.rides.requests == 0
    assert summary.rpc_errors == {}
    assert city.matching.online == set()


async def test_services_that_go_and_come_back_are_found_again_and_their_absence_is_counted(tmp_path: Path) -> None:
    city, stop = FakeCity(), asyncio.Event()
    early, late = np.zeros(3), np.full(3, 5.0)
    both = requests(6, 0.0)
    both = RideRequests(np.concatenate((early, late)), both.pickup, both.dropoff, both.passengers)
    async with asyncio.TaskGroup() as group:
        async with city.open(tmp_path) as addresses:
            params = replace(PARAMS, minutes=None, decline_share=0.0)
            run = group.create_task(run_live(params, both, starts(12), ROUTER, addresses, token, stop=stop))
            await until(lambda: any(ride.state == COMPLETED for ride in city.matching.rides.values()))
        async with city.open(tmp_path):
            await until(lambda: len(city.matching.rides) == 6)
            await until(lambda: all(ride.state == COMPLETED for ride in city.matching.rides.values()))
            stop.set()
            summary, _ = await run
    assert summary.rides.matched == 6
    assert summary.streams_reopened["WatchOffers"] >= 12
    assert summary.streams_reopened["StreamFixes"] >= 4
    assert summary.streams_reopened["StreamFleetFixes"] >= 2
    assert set(summary.rpc_errors) <= {"UNAVAILABLE"}
    assert city.matching.online == set()


@asynccontextmanager
async def stopping(stop: asyncio.Event, condition: Callable[[], bool]) -> AsyncIterator[None]:
    """Sets `stop` as soon as the condition holds, for the time of the block."""

    async def watch() -> None:
        await until(condition)
        stop.set()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        stop.set()
        await watching


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the fakes tell nobody how they stand
            await asyncio.sleep(0.02)


async def test_several_winners_of_one_ride_are_seen_where_nothing_forbids_them() -> None:
    city = FakeCity(fenced=False, phase=8)
    params = replace(PARAMS, decline_share=0.0, minutes=0.05)
    async with city.open() as addresses:
        summary, _ = await run_live(params, requests(1, 0.0), starts(12), ROUTER, addresses, token, stop=asyncio.Event())
    assert summary.double_assignments == 7


async def test_services_that_are_not_there_are_one_clear_error() -> None:
    with pytest.raises(RpcError, match="UNAVAILABLE"):
        await run_live(
            PARAMS,
            requests(1, 0.0),
            starts(12),
            ROUTER,
            Addresses("unix:/nowhere/a", "unix:/nowhere/b", "unix:/nowhere/c"),
            token,
            stop=asyncio.Event(),
        )
