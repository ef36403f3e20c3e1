"""Drivers on a ride are looked at together, and nothing follows from an answer that is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId, DriverId, RideId
from matching.minder import Minder
from matching.model import DriverSilent, NoProgress, RideState
from matching.peers import DriverPosition
from matching.progress import Check, ProgressParams, Watch
from routing.sources import Answered, RouterSource
from tests.matching.rides import NOW_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from matching.model import Event, Ride

CITY = CityId("gridport")
PARAMS = ProgressParams(progress_check_s=20.0, checks_without_progress=2, pickup_silent_limit_s=60.0)
PERIOD_MS = 20_000


@dataclass
class FakeChecks:
    """PostgreSQL as far as the minder sees it."""

    checks: dict[str, Check]
    looked_at_ms: dict[str, int] = field(default_factory=dict)

    async def lease_checks(self, city_id: CityId, now_ms: int, period_ms: int, limit: int) -> list[Check]:
        due = [check for name, check in self.checks.items() if self.looked_at_ms.get(name, 0) + period_ms <= now_ms][:limit]
        self.looked_at_ms.update({check.ride_id: now_ms for check in due})
        return due

    async def keep_watches(self, watches: Sequence[tuple[Check, Watch]]) -> None:
        for check, watch in watches:
            self.checks[check.ride_id] = replace(check, watch=watch)


@dataclass
class FakeLocation:
    """Drivers who stand where they are, but for the silent ones."""

    clock: ManualClock
    silent: bool = False
    away: bool = False
    complete: bool = True
    asked: list[int] = field(default_factory=list)

    async def epoch(self, city_id: CityId) -> tuple[str, bool]:
        if self.away:
            raise DomainError(Reason.PEER_UNAVAILABLE, peer="location")
        return "e1", self.complete

    async def positions(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, DriverPosition]:
        self.asked.append(len(driver_ids))
        return {} if self.silent else {d: DriverPosition(d, Place(40.51, -74.0), None, 100) for d in driver_ids}

    nearby: Any = None
    tell: Any = None


@dataclass
class FakeChanger:
    """Remembers what it was asked to make true."""

    events: list[Event] = field(default_factory=list)

    def ride(self, ride_id: str) -> Callable[[], Awaitable[Ride]]:
        async def load() -> Ride:
            raise AssertionError(f"nobody reads {ride_id}")

        return load

    async def change(self, load: Callable[[], Awaitable[Ride]], event: Event, actor: str) -> None:
        assert actor == "system"
        self.events.append(event)


@dataclass
class SameTimes(RouterSource):
    """Whoever asks is given the same time for every pair."""

    time_s: float = 300.0
    fell_back: bool = False
    questions: int = 0

    async def ask(self, question: Callable[[Any], Any]) -> Answered[Any]:
        self.questions += 1
        return Answered(question(self), "v1", self.fell_back)

    def pair_times_s(self, here: Any, there: Any, depart_ms: int) -> Any:
        assert here.shape == there.shape
        return np.full(len(here), self.time_s, np.float32)


class Scene:
    """So many rides on their way to the pickup, and who looks at them."""

    def __init__(self, rides: int = 3, source: SameTimes | None = None) -> None:
        self.clock = ManualClock(NOW_MS)
        names = [f"gridport-{number}" for number in range(rides)]
        first = Check(RideId(""), DriverId(""), RideState.ACCEPTED, 3, Place(40.5, -74.0), 0, None)
        self.checks = FakeChecks({n: replace(first, ride_id=RideId(n), driver_id=DriverId(f"d-{n}")) for n in names})
        self.location = FakeLocation(self.clock)
        self.source = source or SameTimes()
        self.changer = FakeChanger()
        changer: Any = self.changer
        self.minder = Minder(self.checks, self.location, {CITY: self.source}, changer, self.clock, {CITY: PARAMS})

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.minder.look_at(CITY)
            self.clock.advance(PERIOD_MS)


async def test_many_drivers_cost_one_question_to_location_and_one_to_the_roads() -> None:
    scene = Scene(rides=200)
    await scene.look()
    assert (scene.location.asked, scene.source.questions) == ([200], 1)


async def test_very_many_are_asked_about_in_several() -> None:
    scene = Scene(rides=600)
    await scene.look()
    assert scene.location.asked == [250, 250, 100]


async def test_nobody_is_looked_at_twice_within_a_period() -> None:
    scene = Scene()
    await scene.minder.look_at(CITY)
    await scene.minder.look_at(CITY)
    assert scene.location.asked == [3]


async def test_the_ride_of_who_stands_still_or_is_silent_is_taken_back_at_the_version_that_was_looked_at() -> None:
    scene = Scene(rides=1)
    await scene.look(3)
    assert scene.changer.events == [NoProgress("d-gridport-0", 3)]
    scene = Scene(rides=1)
    scene.location.silent = True
    await scene.look(4)
    assert scene.changer.events == [DriverSilent("d-gridport-0", 3)]


async def test_location_that_does_not_answer_costs_nobody_a_ride() -> None:
    scene = Scene()
    scene.location.silent = scene.location.away = True
    for _ in range(20):
        with pytest.raises(DomainError):
            await scene.look()
        scene.clock.advance(PERIOD_MS)
    scene.location.away = False
    await scene.look(3)
    assert scene.changer.events == []
    await scene.look()
    assert len(scene.changer.events) == 3


async def test_location_that_knows_not_everything_costs_nobody_a_ride() -> None:
    scene = Scene()
    scene.location.silent, scene.location.complete = True, False
    await scene.look(20)
    assert scene.changer.events == []


@pytest.mark.parametrize("source", [SameTimes(fell_back=True), SameTimes(time_s=float("inf"))], ids=["another router", "no way"])
async def test_times_that_do_not_compare_cost_nobody_a_ride(source: SameTimes) -> None:
    scene = Scene(source=source)
    await scene.look(20)
    assert scene.source.questions == 20
    assert scene.changer.events == []


async def test_where_nobody_is_on_a_ride_nobody_is_asked() -> None:
    scene = Scene(rides=0)
    await scene.look(3)
    assert (scene.location.asked, scene.source.questions) == ([], 0)
