"""A city's learner: it hears where drivers are, and whoever asks for travel times is told what it has learned."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest

from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from routing.grid import GridParams, grid_graph
from routing.joining import RoadParams
from routing.knowledge import beliefs_in, nothing_known
from routing.learner import KEPT_TABLES, REPEAT_S, RETRY_S, FleetNews, Learner, LearnerParams
from routing.patches import patches_of
from routing.published import OLDEST_S, PublishedSource
from routing.road import RoadRouter
from routing.state_file import state_of, write_state
from routing.tables import build_tables
from routing.traffic import Beliefs, Evidence, TrafficParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GRID = GridParams(40.5, -74.0, rows=14, columns=14, block_m=120.0, jitter=0.1, seed=4)
NOON_MS = 1_760_000_000_000
ZONE = "America/New_York"
TRUE_SLOWNESS = 4.0
PARAMS = LearnerParams(publish_period_s=60.0, fewest_stretches=5, traffic=TrafficParams(usual_slowness=2.0))


@cache
def base() -> RoadRouter:
    graph = grid_graph(GRID)
    return RoadRouter(graph, build_tables(graph), RoadParams(time_factor=2.0), tables_dir=None)


def router(folder: Path) -> RoadRouter:
    known = base()
    own = RoadRouter(known.graph, known._tables, known.params)
    own.tables_dir = folder
    return own


@dataclass
class Street:
    """A few drivers who cross the town over and over, slower than anybody knows."""

    base: RoadRouter
    drivers: int = 12
    slowness: float = TRUE_SLOWNESS
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def news(self, begin_ms: int, seconds: int, every_s: int = 4) -> list[FleetNews]:
        nodes = self.base.graph.places()
        tracks = []
        for _ in range(self.drivers):
            start, end = self.rng.choice(len(nodes), 2, replace=False)
            tracks.append(
                self.base.with_slowness(np.full(self.base.graph.n_edges, self.slowness), RoadParams()).route(
                    Place(*nodes[start]), Place(*nodes[end]), 0
                )
            )
        told = []
        for at_s in range(0, seconds, every_s):
            places = np.array(
                [[float(np.interp(at_s, track.cumulative_s, track.places[:, axis])) for axis in (0, 1)] for track in tracks]
            )
            ids = [f"d{number}" for number in range(self.drivers)]
            at_ms = np.full(self.drivers, begin_ms + at_s * 1000)
            told.append(FleetNews(at_s == 0, ids, places, at_ms, np.full(self.drivers, 3), []))
        return told


def learner_in(folder: Path, clock: ManualClock, params: LearnerParams = PARAMS) -> Learner:
    return Learner(router(folder), folder / "traffic.npz", ZONE, params, clock)


def source_in(folder: Path, clock: ManualClock) -> PublishedSource:
    own = router(folder)
    return PublishedSource(own, folder / "traffic.npz", len(patches_of(own.free_flow)), clock)


async def taught(folder: Path, clock: ManualClock, minutes: int = 6) -> Learner:
    learner, street = learner_in(folder, clock), Street(router(folder))
    for _ in range(minutes):
        for news in street.news(clock.now_ms(), 240):
            learner.hear(news)
        clock.advance(600_000)  # what lies between two drives is none
        assert await learner.publish()
    return learner


async def time_across(source: PublishedSource) -> tuple[float, str]:
    nodes = base().graph.places()
    answered = await source.ask(lambda each: each.pair_times_s(nodes[:1], nodes[-1:], 0))
    return float(answered.value[0]), answered.version


async def test_those_who_ask_are_told_what_was_learned(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    source = source_in(tmp_path, clock)
    before_s, before = await time_across(source)
    assert not await source.look()

    await taught(tmp_path, clock)

    assert await source.look()
    after_s, after = await time_across(source)
    assert after != before
    assert 1.7 < after_s / before_s < 2.1  # it was thought to be 2 times free flow, and is 4
    assert not await source.look()
    source_again = source_in(tmp_path, clock)
    assert await source_again.look()
    assert await time_across(source_again) == (after_s, after)


def tables_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith("tables-") and name.endswith(".npy")]


async def test_only_so_many_tables_stay(tmp_path: Path) -> None:
    await taught(tmp_path, ManualClock(NOON_MS), minutes=KEPT_TABLES + 2)
    assert len(tables_in(tmp_path)) == KEPT_TABLES


async def test_the_tables_of_what_is_published_stay_whatever_the_machines_clock_says(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner = await taught(tmp_path, clock, minutes=KEPT_TABLES)
    for name in tables_in(tmp_path):
        os.utime(tmp_path / name, (4e9, 4e9))  # all of them from later than now: the clock was set back

    clock.advance(round(REPEAT_S * 1000))
    assert await learner.publish()

    assert f"{learner._present.graph.digest()}.npy" in {name.rpartition("-")[2] for name in tables_in(tmp_path)}


async def test_what_cannot_be_published_is_not_lost_and_fills_no_folder(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner, street = learner_in(tmp_path, clock), Street(router(tmp_path))
    in_the_way = tmp_path / "traffic.npz"
    in_the_way.mkdir()
    for _ in range(KEPT_TABLES + 2):
        for news in street.news(clock.now_ms(), 240):
            learner.hear(news)
        clock.advance(600_000)
        with pytest.raises(OSError, match=r"traffic\.npz"):
            await learner.publish()

    assert len(tables_in(tmp_path)) <= KEPT_TABLES
    assert not learner._knowledge.is_none
    in_the_way.rmdir()
    assert await learner.publish()  # it is due
    source = source_in(tmp_path, clock)
    assert await source.look()


class WithoutRoom(Learner):
    """Its folder is full."""

    tried = 0

    async def publish(self) -> bool:
        self.tried += 1
        raise OSError("no space left")


async def test_a_full_folder_stops_no_learner(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner = WithoutRoom(router(tmp_path), tmp_path / "traffic.npz", ZONE, PARAMS, clock)
    task = asyncio.create_task(learner.run(Told([])))
    await settled()
    for _ in range(2):
        clock.advance(round(PARAMS.publish_period_s * 1000))
        await settled()

    assert not task.done()
    assert learner.tried == 3
    task.cancel()
    await asyncio.wait([task])


async def test_what_a_killed_learner_left_aside_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / "trafficabc.part"
    left.write_bytes(b"half")
    learner_in(tmp_path, ManualClock(NOON_MS))._resume()
    assert not left.exists()


async def test_with_the_hour_what_is_usual_changes_though_nobody_drives(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)  # 04:53 in New York
    learner = await taught(tmp_path, clock, minutes=1)
    hours = Evidence(np.full((24, len(learner._patches)), 3_000.0), np.full((24, len(learner._patches)), 6_000.0))
    hours.took_s[6] = 12_000.0
    learner._knowledge = replace(learner._knowledge, hours=hours, lately=Evidence.none(len(learner._patches)))
    source = source_in(tmp_path, clock)
    said = []
    for _ in range(5):
        clock.advance(round(REPEAT_S * 1000))
        assert await learner.publish()
        await source.look()
        said.append((await time_across(source))[0])

    assert said[-1] > 1.6 * said[0]  # 06:18, after 05:18


def test_where_nothing_is_known_the_citys_own_factor_holds(tmp_path: Path) -> None:
    learner = learner_in(tmp_path, ManualClock(NOON_MS))
    beliefs = beliefs_in(learner._knowledge, 12, learner._patches, learner._params.traffic)
    np.testing.assert_allclose(beliefs.slowness, 2.0)


async def test_too_little_is_not_published_and_is_not_lost(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner = learner_in(tmp_path, clock, replace(PARAMS, fewest_stretches=1_000))
    for news in Street(router(tmp_path)).news(NOON_MS, 120):
        learner.hear(news)

    assert not await learner.publish()
    assert not (tmp_path / "traffic.npz").exists()
    assert sum(len(each) for each in learner._stretches) > 0


async def test_what_is_usual_is_said_again_though_nobody_drives(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner = await taught(tmp_path, clock, minutes=2)

    assert not await learner.publish()
    clock.advance(round(REPEAT_S * 1000))
    assert await learner.publish()


async def test_traffic_of_long_ago_is_none(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    source = source_in(tmp_path, clock)
    _, own = await time_across(source)
    await taught(tmp_path, clock, minutes=1)
    await source.look()
    assert (await time_across(source))[1] != own

    clock.advance(round(OLDEST_S * 1000) + 1)

    assert (await time_across(source))[1] == own


async def test_a_learner_goes_on_where_the_one_before_stopped(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    before = await taught(tmp_path, clock, minutes=2)

    after = learner_in(tmp_path, clock)
    after._resume()

    assert after._number == before._number == 2
    np.testing.assert_array_equal(after._knowledge.hours.took_s, before._knowledge.hours.took_s)


@pytest.mark.parametrize("content", [b"", b"garbage"])
async def test_a_file_that_cannot_be_used_is_no_end(tmp_path: Path, content: bytes) -> None:
    clock = ManualClock(NOON_MS)
    source = source_in(tmp_path, clock)
    own = await time_across(source)
    (tmp_path / "traffic.npz").write_bytes(content)

    assert not await source.look()
    assert await time_across(source) == own
    learner_in(tmp_path, clock)._resume()
    await taught(tmp_path, clock, minutes=1)
    assert await source.look()


async def test_drivers_who_are_gone_are_forgotten(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    learner, street = learner_in(tmp_path, clock), Street(router(tmp_path))
    first = street.news(NOON_MS, 4)[0]
    learner.hear(first)
    assert len(learner._numbers) == street.drivers

    learner.hear(FleetNews(False, [], np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64), ["d3", "nobody"]))
    assert len(learner._numbers) == street.drivers - 1
    learner.hear(
        replace(first, driver_ids=first.driver_ids[:2], places=first.places[:2], at_ms=first.at_ms[:2], doing=first.doing[:2])
    )
    assert sorted(learner._numbers) == ["d0", "d1"]
    learner.hear(first)
    assert sorted(learner._numbers.values()) == list(range(street.drivers))


async def test_tables_that_are_gone_are_made_beside_and_those_that_are_there_are_only_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOON_MS)
    await taught(tmp_path, clock, minutes=1)

    def here(*_: object, **__: object) -> NoReturn:
        raise AssertionError("that was not to be done")

    monkeypatch.setattr("routing.tables._stacked", here)
    for name in tables_in(tmp_path):
        (tmp_path / name).unlink()
    assert await source_in(tmp_path, clock).look()

    monkeypatch.setattr("routing.rebuilding.asyncio.create_subprocess_exec", here)
    assert await source_in(tmp_path, clock).look()


async def test_traffic_that_has_no_router_is_no_end(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    source = source_in(tmp_path, clock)
    own = await time_across(source)
    base = router(tmp_path)
    patches = patches_of(base.free_flow)
    beliefs = Beliefs(np.full(len(patches), 1e6))
    write_state(tmp_path / "traffic.npz", state_of(base, patches, nothing_known(patches, NOON_MS), beliefs, 1))

    assert not await source.look()
    assert await time_across(source) == own


async def test_what_cannot_be_read_now_is_read_later(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    await taught(tmp_path, clock, minutes=1)
    aside = (tmp_path / "traffic.npz").rename(tmp_path / "aside")
    (tmp_path / "traffic.npz").symlink_to(tmp_path / "traffic.npz")
    source = source_in(tmp_path, clock)
    assert not await source.look()

    aside.replace(tmp_path / "traffic.npz")
    assert await source.look()


@dataclass
class Told:
    """A fleet that tells what it is given, and breaks off once."""

    news: list[FleetNews]
    watches: int = 0

    async def watch(self) -> AsyncIterator[FleetNews]:
        self.watches += 1
        if self.watches == 1:
            raise DomainError(Reason.PEER_UNAVAILABLE, "location does not answer")
        for each in self.news:
            yield each
        await asyncio.Event().wait()


async def test_two_learners_of_a_city_take_turns(tmp_path: Path) -> None:
    clock = ManualClock(NOON_MS)
    news = Street(router(tmp_path)).news(NOON_MS, 240)
    one, other = (learner_in(tmp_path, clock) for _ in range(2))
    fleets = [Told(news), Told(news)]
    tasks = [asyncio.create_task(one.run(fleets[0]))]
    await settled()
    tasks.append(asyncio.create_task(other.run(fleets[1])))
    await settled()
    for _ in range(3):
        clock.advance(round(RETRY_S * 1000))
        await settled()
    assert [fleet.watches > 0 for fleet in fleets] == [True, False]
    assert fleets[0].watches == 2

    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    clock.advance(round(RETRY_S * 1000))
    await settled()

    assert fleets[1].watches > 0
    tasks[1].cancel()
    await asyncio.wait(tasks[1:])


async def settled() -> None:
    """Lets all that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("change", [{"publish_period_s": 0.5}, {"publish_period_s": REPEAT_S + 1}, {"fewest_stretches": 0}])
def test_unfit_parameters_are_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(PARAMS, **change)  # type: ignore[arg-type]
