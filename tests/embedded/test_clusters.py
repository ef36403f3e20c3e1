"""Which clusters a service starts on: whole ones, by a cluster's address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hexhail.embedded import StoreError, check_valkey
from tests.stores.nodes import RunningCluster, embedded_cluster, mortal_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
async def injured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCluster]:
    async with embedded_cluster(tmp_path_factory.mktemp("injured")) as cluster:
        yield cluster


async def refusal(url: str) -> str:
    """The line with which an address is refused."""
    with pytest.raises(StoreError) as refused:
        await check_valkey(url)
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_a_whole_cluster_is_accepted_by_any_seed_that_lives(running_cluster: RunningCluster) -> None:
    hosts = [node.url.removeprefix("redis://") for node in running_cluster.primaries]

    await check_valkey(running_cluster.url)
    await check_valkey(f"redis+cluster://{hosts[2]}")
    await check_valkey(f"redis+cluster://127.0.0.1:1,{hosts[1]}")


async def test_a_node_of_a_cluster_is_no_single_server(running_cluster: RunningCluster) -> None:
    message = await refusal(running_cluster.primaries[0].url)

    assert "found a node of a cluster" in message
    assert "redis+cluster://host:port" in message


async def test_a_single_server_is_no_cluster(tmp_path: Path) -> None:
    async with mortal_valkey(tmp_path, tcp=True) as single:
        message = await refusal(single.url.replace("redis://", "redis+cluster://"))

    assert "no node of a cluster" in message
    assert "redis://host:port" in message


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://me:secret@127.0.0.1:1,127.0.0.1:2",
        "redis+cluster://127.0.0.1:1/3",
        "redis+cluster://",
        "redis+cluster://host:port",
        "redis+cluster://127.0.0.1:1?no_such_option=1",
    ],
)
async def test_a_dead_or_senseless_cluster_is_an_error(url: str) -> None:
    message = await refusal(url)

    assert "no Valkey or Redis answers at redis+cluster://" in message
    assert "HEXHAIL_REDIS_URL" in message
    assert "secret" not in message


async def test_every_primary_must_answer(injured: RunningCluster) -> None:
    lost = injured.primaries[1]
    await lost.kill()

    message = await refusal(injured.url)

    assert lost.url.removeprefix("redis://") in message
    await lost.start()
    await injured.whole()
    await check_valkey(injured.url)


async def test_every_slot_must_have_a_primary(injured: RunningCluster) -> None:
    first = injured.primaries[0]
    await first.tell("CLUSTER", "DELSLOTSRANGE", 100, 199)

    message = await refusal(injured.url)

    assert "16284 of 16384 slots" in message
    await first.tell("CLUSTER", "ADDSLOTSRANGE", 100, 199)
    await injured.whole()


async def test_the_cluster_must_be_well_in_the_opinion_of_every_primary(injured: RunningCluster) -> None:
    """One that demands full coverage, and misses a slot that the first does not: its view is its own."""
    second = injured.primaries[1]
    await second.tell("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    first_slot = 16_384 - 1
    await second.tell("CLUSTER", "DELSLOTS", first_slot)

    message = await refusal(injured.url)

    assert "the cluster's state is fail" in message
    assert second.url.removeprefix("redis://") in message
    await second.tell("CONFIG", "SET", "cluster-require-full-coverage", "no")
