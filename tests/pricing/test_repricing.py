"""Surge is recomputed from whole inputs or not at all; what is not known is said, never guessed."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.embedded import embedded_valkey
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import cell_of
from pricing.repricer import Outcome
from tests.pricing.world import DROPOFF, NOON_MS, PICKUP, RIDER, TESTPORT, city, refused, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.pricing.world import Pricing, World

CELL = cell_of(PICKUP, 8)
SILENT = DomainError(Reason.PEER_UNAVAILABLE, "not there", peer="test")


async def recompute(pricing: Pricing) -> Outcome:
    return (await pricing.running.repricer.recompute())[TESTPORT]


@asynccontextmanager
async def after_first(one: Pricing, world: World) -> AsyncIterator[Pricing]:
    """A second service beside `one`, which has the lease."""
    assert await recompute(one) is Outcome.PUBLISHED
    async with world.pricing() as two:
        assert await recompute(two) is Outcome.FOLLOWED
        yield two


async def test_an_empty_city_that_is_completely_known_has_no_surge(world: World) -> None:
    async with world.pricing() as pricing:
        await until(lambda: "matching" in world.peers.asked)
        await recompute(pricing)
        surge = await pricing.surge()
        assert (list(surge.surge.cells), surge.stale, surge.as_of_ms) == ([], False, NOON_MS)
        assert surge.version >= 1
        assert await pricing.multipliers(CELL) == {CELL: 1000}


async def test_versions_count_the_recomputations(world: World) -> None:
    async with world.pricing() as pricing:
        await recompute(pricing)
        before = (await pricing.surge()).version
        for _ in range(3):
            assert await recompute(pricing) is Outcome.PUBLISHED
        assert (await pricing.surge()).version == before + 3


async def test_it_is_recomputed_on_its_period(world: World) -> None:
    async with world.pricing(city(surge_period_s=5)) as pricing:
        await recompute(pricing)
        first = (await pricing.surge()).version
        world.peers.asked.clear()
        world.clock.advance(4_999)
        world.clock.advance(1)
        await until(lambda: world.peers.asked.count("matching") == 1)
        await recompute(pricing)
        assert (await pricing.surge()).version == first + 2


@pytest.mark.parametrize("peer", ["location", "matching"])
async def test_before_every_input_was_had_once_surge_is_unknown(world: World, peer: str) -> None:
    world.peers.refuse[peer] = SILENT
    async with world.pricing() as pricing:
        assert await recompute(pricing) is Outcome.KEPT
        assert (await refused(pricing.quotes())).reason is Reason.SURGE_UNKNOWN
        assert (await refused(pricing.surge())).reason is Reason.SURGE_UNKNOWN
        del world.peers.refuse[peer]
        assert await recompute(pricing) is Outcome.PUBLISHED
        await pricing.quotes()


async def test_incomplete_supply_is_not_scarcity(world: World) -> None:
    world.peers.complete = False
    async with world.pricing() as pricing:
        assert await recompute(pricing) is Outcome.KEPT
        assert (await refused(pricing.surge())).reason is Reason.SURGE_UNKNOWN


async def test_a_start_without_peers_is_tried_again_soon(world: World) -> None:
    world.peers.refuse["matching"] = SILENT
    async with world.pricing(city(surge_period_s=30)) as pricing:
        await recompute(pricing)
        world.peers.refuse.clear()
        world.clock.advance(1_000)
        await until(lambda: pricing.running.repricer._board.latest(TESTPORT) is not None)


@pytest.mark.parametrize("trouble", ["location", "matching", "incomplete", "old"])
async def test_a_missing_input_keeps_the_last_good_values_marked(world: World, trouble: str) -> None:
    world.peers.supply, world.peers.open_requests = {CELL: 1}, {CELL: 2}
    async with world.pricing() as pricing:
        await recompute(pricing)
        good = await pricing.surge()
        world.clock.advance(9_000)
        world.peers.supply, world.peers.open_requests = {}, {CELL: 50}
        if trouble == "incomplete":
            world.peers.complete = False
        elif trouble == "old":
            world.peers.as_of_ms = NOON_MS - 301_000
        else:
            world.peers.refuse[trouble] = SILENT
        assert await recompute(pricing) is Outcome.KEPT
        kept = await pricing.surge()
        assert (kept.stale, kept.version, kept.as_of_ms) == (True, good.version, NOON_MS)
        assert kept.surge == good.surge
        quote = (await pricing.quotes()).quotes[0]
        assert (quote.receipt.multiplier_milli, quote.receipt.surge.stale) == (2000, True)

        world.peers.complete, world.peers.as_of_ms = True, None
        world.peers.refuse.clear()
        assert await recompute(pricing) is Outcome.PUBLISHED
        fresh = await pricing.surge()
        assert (fresh.stale, fresh.version, fresh.as_of_ms) == (False, good.version + 1, NOON_MS + 9_000)
        assert await pricing.multipliers() == {CELL: 2500}


async def test_a_peer_that_is_gone_counts_as_missing(world: World) -> None:
    async with world.pricing() as pricing:
        await recompute(pricing)
        await world.location.stop(0)
        assert await recompute(pricing) is Outcome.KEPT
        assert (await pricing.surge()).stale


async def test_good_values_are_not_used_for_ever(world: World) -> None:
    async with world.pricing(city(surge_max_age_s=60)) as pricing:
        await recompute(pricing)
        world.peers.refuse["location"] = SILENT
        world.clock.advance(60_000)
        await recompute(pricing)
        assert (await pricing.surge()).stale
        world.clock.advance(1)
        assert (await refused(pricing.surge())).reason is Reason.SURGE_UNKNOWN
        assert (await refused(pricing.quotes())).reason is Reason.SURGE_UNKNOWN


async def test_a_wiped_store_costs_neither_values_nor_demand(world: World, valkey: Redis) -> None:
    world.peers.supply = {CELL: 1}
    async with world.pricing() as pricing:
        await recompute(pricing)
        for rider in range(4):
            await pricing.quotes(rider=f"rider-{rider}")
        await recompute(pricing)
        before = await pricing.surge()
        await valkey.flushall()
        assert (await pricing.surge()).surge == before.surge
        await recompute(pricing)
        after = await pricing.surge()
        assert (after.version, after.surge) == (before.version + 1, before.surge)
        assert list(after.surge.demand_milli) == [1000]


async def test_a_wiped_store_is_filled_again_even_without_inputs(world: World, valkey: Redis) -> None:
    world.peers.supply, world.peers.open_requests = {CELL: 1}, {CELL: 2}
    async with world.pricing() as pricing:
        await recompute(pricing)
        await valkey.flushall()
        world.peers.refuse["location"] = SILENT
        await recompute(pricing)
        async with world.pricing() as another:
            await recompute(another)
            found = await another.surge()
    assert (found.stale, list(found.surge.multiplier_milli)) == (True, [2000])


async def test_a_store_that_is_away_stops_neither_quotes_nor_their_demand(world: World, short_dir: Path) -> None:
    store = AsyncExitStack()
    url = await store.enter_async_context(embedded_valkey(short_dir))
    async with world.pricing(redis_url=url) as pricing:
        await recompute(pricing)
        good = (await pricing.surge()).version
        await store.aclose()
        assert await recompute(pricing) is Outcome.KEPT
        assert (await pricing.surge()).stale
        await pricing.quotes()
        async with embedded_valkey(short_dir) as again:
            assert again == url
            assert await recompute(pricing) is Outcome.PUBLISHED
            surge = await pricing.surge(CELL)
            assert (surge.version, surge.stale, list(surge.surge.demand_milli)) == (good + 1, False, [250])


async def test_of_two_processes_one_recomputes_and_the_other_follows(world: World) -> None:
    async with world.pricing() as one, after_first(one, world) as two:
        world.peers.asked.clear()
        world.peers.supply, world.peers.open_requests = {CELL: 1}, {CELL: 2}
        assert [await recompute(two), await recompute(one), await recompute(two)] == [
            Outcome.FOLLOWED,
            Outcome.PUBLISHED,
            Outcome.FOLLOWED,
        ]
        assert world.peers.asked.count("location") == world.peers.asked.count("matching") == 1
        assert await one.surge() == await two.surge()
        assert await two.multipliers() == {CELL: 2000}


async def test_a_publication_reaches_the_other_process_by_itself(world: World) -> None:
    async with world.pricing() as one, after_first(one, world) as two:
        board = two.running.repricer._board
        await recompute(two)
        for _ in range(3):
            await recompute(one)
            version = (await one.surge()).version
            await until(lambda wanted=version: (known := board.latest(TESTPORT)) is not None and known.version == wanted)


async def test_a_quote_given_by_one_process_is_demand_for_the_other(world: World) -> None:
    async with world.pricing() as one, after_first(one, world) as two:
        await two.quotes()
        await recompute(one)
        assert list((await one.surge(CELL)).surge.demand_milli) == [250]


async def test_the_lease_passes_on_when_its_holder_stops(world: World) -> None:
    async with AsyncExitStack() as stack:
        async with world.pricing() as one:
            two = await stack.enter_async_context(after_first(one, world))
            assert await recompute(two) is Outcome.FOLLOWED
        assert await recompute(two) is Outcome.PUBLISHED


async def test_the_lease_of_a_holder_that_fell_silent_runs_out(world: World, valkey: Redis) -> None:
    async with world.pricing() as pricing:
        await recompute(pricing)
        await valkey.set("{testport}:pricing:lease", f"gone {world.clock.now_ms() + 23_000}")
        assert await recompute(pricing) is Outcome.FOLLOWED
        world.clock.advance(23_000)
        assert await recompute(pricing) is Outcome.PUBLISHED


async def test_a_new_process_begins_with_what_is_published(world: World) -> None:
    world.peers.supply, world.peers.open_requests = {CELL: 1}, {CELL: 2}
    async with world.pricing() as one:
        await recompute(one)
        published = await one.surge()
    world.peers.refuse["location"] = SILENT
    async with world.pricing() as two:
        await recompute(two)
        found = await two.surge()
    assert (found.surge, found.version, found.stale) == (published.surge, published.version, True)


async def test_a_publication_that_cannot_be_read_is_replaced(world: World, valkey: Redis) -> None:
    await valkey.set("{testport}:pricing:surge", b"rubbish" * 20)
    async with world.pricing() as pricing:
        assert await recompute(pricing) is Outcome.PUBLISHED
        assert (await pricing.surge()).version >= 1


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ([CELL, 17], "cells[1]"),
        ([2**63], "cells[0]"),
        ([cell_of(DROPOFF, 9)], "cells[0]"),
        ([CELL] * 10_001, "cells"),
    ],
)
async def test_cells_that_are_none_of_the_city_are_refused(world: World, cells: list[int], field: str) -> None:
    async with world.pricing() as pricing:
        for call, request in ((pricing.stub.GetSurge, pb.GetSurgeRequest),):
            error = await refused(call(request(city_id=TESTPORT, cells=cells), metadata=RIDER))
            assert (error.reason, error.metadata["field"]) == (Reason.INVALID_FIELD, field)
        watch = pricing.stub.WatchSurge(pb.WatchSurgeRequest(city_id=TESTPORT, cells=cells), metadata=RIDER)
        error = await refused(watch.read())
        assert (error.reason, error.metadata["field"]) == (Reason.INVALID_FIELD, field)
