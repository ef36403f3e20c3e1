"""Nothing that anybody was told is lost, and nobody has two rides or two drivers, whatever is killed, wiped or restarted."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from benchmarks.crowd import told_of
from benchmarks.ending_wire import ending_of
from benchmarks.history import OK, Answered, Call, History
from benchmarks.history_checks import Kind, violations
from hexhail.cli.chaos import ChaosParams, run_chaos
from hexhail.kernel.errors import Reason
from hexhail.kernel.settings import Settings
from matching import postgres_statements
from tests.e2e.people import Passenger, phones, until
from tests.e2e.test_races import CITY, VanishingClaims, accept, all_accept, around
from tests.e2e.world import world_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cli.chaos import ChaosReport
    from hexhail.client import RideView
    from hexhail.embedded import Stores
    from matching.store import Claims
    from tests.e2e.people import Phone
    from tests.e2e.world import World

CROWD = 4


async def storm(params: ChaosParams) -> ChaosReport:
    with tempfile.TemporaryDirectory(prefix="hx", dir="/tmp") as folder:
        settings = Settings(data_dir=Path(folder), cache_dir=Path(folder) / "cache")
        return await run_chaos(params, settings, Path(folder), lambda _: None)


def must_be_sound(report: ChaosReport) -> None:
    assert list(report.violations) == []
    assert report.raised == ()
    assert report.errors == {}


@pytest.mark.timeout(300)
async def test_a_storm_loses_nothing_and_doubles_nothing() -> None:
    """Some hundred rides; `hexhail chaos`, and the slow one below, go on for longer."""
    report = await storm(ChaosParams(seed=7, minutes=0.25, drivers=40, rides_per_s=6.0, kills_per_minute=12.0))
    must_be_sound(report)
    assert min(report.kills, report.wipes, report.restarts) >= 1
    assert report.states["COMPLETED"] > 0
    assert report.told > report.rides > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_thousands_of_rides_in_a_storm(seed: int) -> None:
    report = await storm(ChaosParams(seed=seed, minutes=3.0, workers=3, drivers=120, rides_per_s=12.0))
    must_be_sound(report)
    assert report.rides > 1_000


def history_of(crowd: Sequence[Phone], answers: Sequence[RideView | Reason], ride_id: str) -> History:
    """What drivers were told who accepted one ride."""
    history = History()
    for phone, answer in zip(crowd, answers, strict=True):
        driver_id = phone.app.driver_id
        outcome = answer.value if isinstance(answer, Reason) else OK
        (offer_id,) = phone.offers
        now_ms = phone.world.clock.now_ms()
        history.answers.append(Answered(driver_id, Call.ACCEPT, outcome, now_ms, now_ms, ride_id, offer_id))
        if not isinstance(answer, Reason):
            history.told.append(told_of(driver_id, answer, now_ms))
    return history


async def found_in(world: World, dsn: str, history: History) -> set[Kind]:
    ending = await ending_of(dsn, world.city.city_id, world.clock.now_ms())
    return {violation.kind for violation in violations(history, ending)}


async def test_of_many_who_accept_at_once_nothing_is_wrong_while_the_fence_stands(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with (
        world_of(stores, CITY, wrap_claims=lambda claims: VanishingClaims(claims, CROWD)) as world,
        phones(world, around(CROWD)) as crowd,
    ):
        rider = Passenger(world, world.rider())
        answers = await all_accept(world, crowd, rider)
        assert answers.count(Reason.ALREADY_TAKEN) == CROWD - 1
        assert await found_in(world, postgres_dsn, history_of(crowd, answers, rider.ride_id)) == set()


async def test_without_the_fence_the_checker_finds_the_double_assignment(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no locks, no version in the update and no unique index: all decide alike before the first commits, and all win."""
    unconditional = postgres_statements.UPDATE_RIDE.replace("AND version = $2", "AND $2::bigint IS NOT NULL")
    assert unconditional != postgres_statements.UPDATE_RIDE
    monkeypatch.setattr(postgres_statements, "UPDATE_RIDE", unconditional)
    vanishing: list[VanishingClaims] = []

    def without_locks(claims: Claims) -> Claims:
        vanishing.append(VanishingClaims(claims, CROWD))
        return vanishing[0]

    async with world_of(stores, CITY, wrap_claims=without_locks) as world, phones(world, around(CROWD)) as crowd:
        await drop(postgres_dsn, "assignments_one_active_per_ride", "assignments_one_active_per_slot")
        rider = Passenger(world, world.rider())
        await rider.request()
        accepting = []
        for number, phone in enumerate(crowd, 1):  # each at an instant of its own: one place in the log has one event
            await phone.next_offer()
            accepting.append(asyncio.create_task(accept(phone)))
            await until(lambda n=number: vanishing[0].decided == n, f"{number} have not decided")  # type: ignore[misc]
            world.clock.advance(1)
        answers = await asyncio.gather(*accepting)
        assert not [answer for answer in answers if isinstance(answer, Reason)]
        found = await found_in(world, postgres_dsn, history_of(crowd, answers, rider.ride_id))
        assert found >= {Kind.DOUBLE_ASSIGNMENT, Kind.CONTRADICTED, Kind.LOST, Kind.NOT_FREE}


async def drop(dsn: str, *indexes: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for index in indexes:
            await connection.execute(f"DROP INDEX matching.{index}")
    finally:
        await connection.close()
