"""Asking a cluster: each call where its key is, slots on the move, and what a lost primary takes with it."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from hexhail.kernel.errors import DomainError, Reason
from hexhail.stores import valkey as stores
from hexhail.stores.cluster import Cluster
from hexhail.stores.valkey import Valkey, open_valkey
from tests.stores.nodes import RunningCluster, embedded_cluster, mortal_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import RedisCluster

TWICE = "return ARGV[1] .. ARGV[1]"
CALL = ("EVALSHA", hashlib.sha1(TWICE.encode(), usedforsecurity=False).hexdigest(), 1)


@pytest.fixture
async def asking(valkey_cluster: RedisCluster, cluster_url: str) -> AsyncIterator[Valkey]:
    await valkey_cluster.script_flush()
    opened = open_valkey(cluster_url, [TWICE])
    yield opened
    await opened.aclose()


@pytest.fixture(scope="module")
async def injured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCluster]:
    async with embedded_cluster(tmp_path_factory.mktemp("injured")) as cluster:
        yield cluster


@pytest.fixture
async def frail(injured: RunningCluster) -> AsyncIterator[RunningCluster]:
    """A whole, empty cluster; what the test does to it is made good."""
    await injured.flush()
    yield injured
    for node in injured.primaries:
        if not node.well:
            await node.kill()
            await node.start()
    await injured.whole()


@pytest.fixture
async def to_frail(frail: RunningCluster) -> AsyncIterator[Valkey]:
    opened = open_valkey(frail.url, [TWICE])
    yield opened
    await opened.aclose()


def is_loss(reply: Any) -> bool:
    return isinstance(reply, DomainError) and reply.reason is Reason.STORE_UNAVAILABLE


def one_each(cluster: RunningCluster) -> list[str]:
    """A key in each primary."""
    return [cluster.key_of(node) for node in cluster.primaries]


async def until_answered(asking: Valkey, calls: list[tuple[str, ...]], wanted: list[Any]) -> None:
    async with asyncio.timeout(30):
        while await asking.ask(calls) != wanted:  # noqa: ASYNC110  (asking is how one learns)
            await asyncio.sleep(0.02)


async def test_replies_of_all_nodes_come_in_the_order_of_the_calls(asking: Valkey, running_cluster: RunningCluster) -> None:
    keys = [f"k{number}" for number in range(60)]
    assert {running_cluster.first_primary_of(key).url for key in keys} == {node.url for node in running_cluster.primaries}

    assert await asking.ask([("SET", key, key) for key in keys]) == [b"OK"] * 60
    assert await asking.ask([(*CALL, key, key) for key in keys]) == [2 * key.encode() for key in keys]
    assert await asking.ask([("PING",), *(("GET", key) for key in keys)]) == [b"PONG", *(key.encode() for key in keys)]
    assert await asking.ask([]) == []


async def test_calls_of_one_slot_are_carried_out_in_their_order(asking: Valkey) -> None:
    calls = [(*call,) for key in ("{a}k", "{b}k", "{c}k") for call in (("APPEND", key, "1"), ("APPEND", key, "2"), ("GET", key))]

    assert await asking.ask(calls) == [1, 2, b"12"] * 3


async def test_a_refusal_stands_in_its_place(asking: Valkey) -> None:
    refused, other, crossing = await asking.ask([("INCRBY", "{a}k", "x"), ("SET", "{b}k", "v"), ("MGET", "{a}k", "{b}k")])

    assert other == b"OK"
    assert isinstance(refused, ResponseError)
    assert isinstance(crossing, ResponseError)


async def test_callers_who_give_up_leave_no_reply_to_the_next(asking: Valkey, running_cluster: RunningCluster) -> None:
    keys = one_each(running_cluster)
    wrong: list[Any] = []

    async def talk(name: str, rounds: int) -> None:
        for number in range(rounds):
            replies = await asking.ask([(*CALL, key, f"{name}.{number}") for key in keys])
            if replies != [2 * f"{name}.{number}".encode()] * len(keys):
                wrong.append((name, number, replies))

    async def give_up(number: int) -> bool:
        task = asyncio.ensure_future(talk(f"g{number}", 1_000_000))
        for _ in range(number % 97):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    ended = await asyncio.gather(talk("steady", 100), *(give_up(number) for number in range(200)))

    assert ended[1:] == [True] * 200
    assert wrong == []


async def test_a_slot_that_has_moved_is_followed(to_frail: Valkey, frail: RunningCluster) -> None:
    source, target, _ = frail.primaries
    key = frail.key_of(source)
    assert await to_frail.ask([("SET", key, "old")]) == [b"OK"]
    await source.tell("DEL", key)

    await frail.give(key_slot(key.encode()), target)

    try:
        assert await to_frail.ask([("SET", key, "new"), ("GET", key)]) == [b"OK", b"new"]
        assert await target.tell("GET", key) == b"new"
    finally:
        await target.tell("DEL", key)
        await frail.give(key_slot(key.encode()), source)


async def test_a_slot_on_the_move_is_asked_where_its_keys_are(to_frail: Valkey, frail: RunningCluster) -> None:
    source, target, _ = frail.primaries
    key, other = frail.key_of(source), frail.key_of(target)
    slot = key_slot(key.encode())
    await frail.start_moving(slot, source, target)

    try:
        assert await to_frail.ask([("SET", key, "v"), ("SET", other, "w"), ("GET", key), (*CALL, key, "x")]) == [
            b"OK",
            b"OK",
            b"v",
            b"xx",
        ]
        with pytest.raises(ResponseError, match=f"^{slot} "):  # of an ASK, redis-py keeps the place only
            await source.tell("GET", key)
    finally:
        await frail.give(slot, target)
        await target.tell("DEL", key)
        await frail.give(slot, source)


async def test_a_lost_primary_fails_its_own_calls_only_and_its_empty_successor_is_found(
    to_frail: Valkey, frail: RunningCluster
) -> None:
    keys = one_each(frail)
    await to_frail.ask([("SET", key, "v") for key in keys])

    await frail.primaries[1].kill()
    replies = await to_frail.ask([("GET", key) for key in keys])
    assert (replies[0], is_loss(replies[1]), replies[2]) == (b"v", True, b"v")
    replies = await to_frail.ask([(*CALL, key, "x") for key in keys])
    assert (replies[0], is_loss(replies[1]), replies[2]) == (b"xx", True, b"xx")

    await frail.primaries[1].start()

    await until_answered(to_frail, [("GET", key) for key in keys], [b"v", None, b"v"])
    assert await to_frail.ask([(*CALL, key, "x") for key in keys]) == [b"xx"] * 3


async def test_a_silent_primary_holds_nobody_longer_than_the_limit(
    to_frail: Valkey, frail: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = one_each(frail)
    await to_frail.ask([("SET", key, "v") for key in keys])
    frail.primaries[0].freeze()
    monkeypatch.setattr(stores, "ANSWER_S", 0.2)

    async with asyncio.timeout(30):
        together = await to_frail.ask([("GET", key) for key in keys])
        alone = await asyncio.gather(*(to_frail.ask([("GET", key)]) for key in keys * 10))

    assert (is_loss(together[0]), together[1:]) == (True, [b"v", b"v"])
    assert [is_loss(reply) or reply for (reply,) in alone] == [True, b"v", b"v"] * 10


async def test_where_no_node_answers_nothing_does(to_frail: Valkey, frail: RunningCluster) -> None:
    keys = one_each(frail)
    await to_frail.ask([("SET", key, "v") for key in keys])
    for node in frail.primaries:
        await node.kill()

    assert [is_loss(reply) for reply in await to_frail.ask([("GET", key) for key in keys])] == [True] * 3
    unborn = open_valkey(frail.url)
    (reply,) = await unborn.ask([("GET", "k")])
    await unborn.aclose()
    assert is_loss(reply)
    assert "no node of the cluster" in reply.message


async def test_one_seed_that_lives_is_enough(frail: RunningCluster) -> None:
    dead, living, _ = frail.primaries
    await dead.kill()
    asking = open_valkey(frail.url)
    try:
        assert await asking.ask([("SET", frail.key_of(living), "v")]) == [b"OK"]
    finally:
        await asking.aclose()


async def test_a_slot_without_a_primary_is_said_to_be_unavailable(to_frail: Valkey, frail: RunningCluster) -> None:
    key, other = one_each(frail)[:2]
    slot = key_slot(key.encode())
    for node in frail.primaries:
        await node.tell("CLUSTER", "DELSLOTS", slot)

    try:
        replies = await to_frail.ask([("GET", key), ("GET", other)])
        assert (is_loss(replies[0]), replies[1]) == (True, None)
    finally:
        await frail.first_primary_of(key).tell("CLUSTER", "ADDSLOTS", slot)


async def test_keys_on_both_sides_of_a_move_are_waited_for_a_little(to_frail: Valkey, frail: RunningCluster) -> None:
    source, target, _ = frail.primaries
    slot = key_slot(frail.key_of(source).encode())
    here, there = (f"{{{frail.key_of(source)}}}{number}" for number in range(2))
    await to_frail.ask([("SET", here, "v")])
    await frail.start_moving(slot, source, target)
    both = [("MGET", here, there)]

    (split,) = await to_frail.ask(both)
    assert is_loss(split)
    waiting = asyncio.ensure_future(to_frail.ask(both))
    await asyncio.sleep(0)
    await source.tell("CLUSTER", "SETSLOT", slot, "STABLE")
    await target.tell("CLUSTER", "SETSLOT", slot, "STABLE")

    assert await waiting == [[b"v", None]]


async def test_a_server_that_is_no_cluster_is_unavailable_as_one(socket_dir: Path) -> None:
    async with mortal_valkey(socket_dir, tcp=True) as single:
        asking = open_valkey(single.url.replace("redis://", "redis+cluster://"))
        (reply,) = await asking.ask([("GET", "k")])
        await asking.aclose()

    assert is_loss(reply)
    assert "cluster support disabled" in reply.message


async def test_a_node_without_its_memory_is_not_believed_about_the_others() -> None:
    asked: list[str] = []

    class Told:
        """A line to a node that has forgotten its cluster, or to one that has not."""

        def __init__(self, url: str) -> None:
            self._host = url.removeprefix("redis://").split(":")[0]

        async def exchange(self, calls: list[tuple[str, ...]]) -> list[Any]:
            asked.append(self._host)
            described = [[0, 16_383, [b"mindful", 1, b"id"]]] if self._host == "mindful" else []
            return [described if call == ("CLUSTER", "SLOTS") else self._host for call in calls]

        async def close(self) -> None:
            """Nothing is open."""

    cluster = Cluster(["redis://forgetful:1", "redis://mindful:1"], Told)  # type: ignore[arg-type]

    assert await cluster.ask([("GET", "k")], 2.0) == ["mindful"]
    assert asked == ["forgetful", "mindful", "mindful"]


async def test_after_a_failover_the_new_primary_is_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with embedded_cluster(tmp_path_factory.mktemp("replicated"), replicas=True) as cluster:
        keys = one_each(cluster)
        asking = open_valkey(cluster.url, [TWICE])
        try:
            assert await asking.ask([("SET", key, "v") for key in keys]) == [b"OK"] * 3
            for primary in cluster.primaries[:2]:
                await primary.tell("WAIT", 1, 5_000)

            await cluster.fail_over(cluster.replicas[0])
            await until_answered(asking, [("GET", key) for key in keys], [b"v"] * 3)
            assert await asking.ask([(*CALL, keys[0], "x"), ("SET", keys[0], "w")]) == [b"xx", b"OK"]

            await cluster.primaries[1].kill()
            (reply,) = await asking.ask([("GET", keys[1])])
            assert is_loss(reply)
            await cluster.fail_over(cluster.replicas[1])
            await until_answered(asking, [("GET", key) for key in keys], [b"w", b"v", b"v"])
        finally:
            await asking.aclose()
