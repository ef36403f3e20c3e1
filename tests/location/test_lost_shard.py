"""One of three primaries dies, is replaced by an empty one, or by its replica: nothing false is said, and all is whole again."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from redis.asyncio import RedisCluster

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import bucket_of
from location.keys import bucket_keys
from location.model import Availability
from tests.location.world import CENTRE, CITY, World, fix_row, packed, refusal, state, world_on
from tests.stores.nodes import embedded_cluster, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.stores.nodes import Node, RunningCluster

BUCKETS = 4
IDS = [f"d{number}" for number in range(24)]


@asynccontextmanager
async def clustered(*, replicas: bool = False) -> AsyncIterator[tuple[RunningCluster, World]]:
    with tempfile.TemporaryDirectory(prefix="hx", dir="/tmp") as folder:
        async with (
            embedded_cluster(Path(folder), replicas=replicas) as cluster,
            RedisCluster.from_url(cluster.primaries[0].url) as client,
            world_on(cluster.url, client, BUCKETS) as world,
        ):
            yield cluster, world


def buckets_on(cluster: RunningCluster, node: Node) -> set[int]:
    keys = {bucket: bucket_keys(CITY, bucket).records for bucket in range(BUCKETS)}  # type: ignore[arg-type]
    return {bucket for bucket, key in keys.items() if cluster.first_primary_of(key) is node}


async def report_all(world: World, sequence: int) -> None:
    rows = np.concatenate([fix_row(CENTRE[0] + 0.0005 * n, CENTRE[1], sequence=sequence) for n in range(len(IDS))])
    await world.location.store.write_fixes(IDS, packed(rows))


async def test_a_lost_shard_is_told_apart_from_an_empty_city_and_filled_again() -> None:
    async with clustered() as (cluster, world):
        await world.tell(*(state(driver_id) for driver_id in IDS))
        await report_all(world, 1)
        assert sorted(await world.names_nearby(max_drivers=100)) == sorted(IDS)
        lost = next(node for node in cluster.primaries if buckets_on(cluster, node))
        gone = {driver_id for driver_id in IDS if bucket_of(driver_id, BUCKETS) in buckets_on(cluster, lost)}
        before = await world.location.store.state_epoch()

        await lost.kill()
        error = await refusal(world.nearby())
        assert error.reason is Reason.STORE_UNAVAILABLE

        await lost.start()
        await cluster.whole()
        await until(answers, world, True)
        await report_all(world, 2)
        answer = await world.nearby(max_drivers=100)
        assert {each.position.driver_id for each in answer.drivers} == set(IDS) - gone
        assert not answer.complete, "whose states were lost with the shard may be near"
        assert (await world.location.store.state_epoch()).epoch != before.epoch, "so matching tells all again"

        busy = min(gone)
        await world.tell(*(state(d, Availability.ON_RIDE if d == busy else Availability.AVAILABLE, version=2) for d in IDS))
        assert sorted(await world.names_nearby(max_drivers=100)) == sorted(set(IDS) - {busy})
        assert (await world.nearby()).complete


async def test_a_failover_goes_unnoticed_but_for_a_moment() -> None:
    async with clustered(replicas=True) as (cluster, world):
        await world.tell(*(state(driver_id) for driver_id in IDS))
        await report_all(world, 1)
        lost = next(node for node in cluster.primaries if buckets_on(cluster, node))
        replica = cluster.replicas[cluster.primaries.index(lost)]
        await lost.tell("WAIT", 1, 10_000)
        await lost.kill()
        await cluster.fail_over(replica)
        await until(answers, world, True)
        await report_all(world, 2)
        answer = await world.nearby(max_drivers=100)
        assert sorted(each.position.driver_id for each in answer.drivers) == sorted(IDS)
        assert answer.complete, "the states were not lost"


async def answers(world: World) -> bool:
    try:
        await world.location.store.state_epoch()
        await report_all(world, 1)
    except DomainError:
        return False
    return True
