"""Asking one node: order, refusals in place, scripts, and what a lost node or a caller who gives up leave behind."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from redis.exceptions import NoScriptError, ResponseError

from hexhail.embedded import StoreError
from hexhail.kernel.errors import DomainError, Reason
from hexhail.stores import valkey as stores
from hexhail.stores.line import CONNECTIONS
from hexhail.stores.valkey import Valkey, answered, connect, open_valkey
from tests.stores.nodes import Node, mortal_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

TWICE = "return ARGV[1] .. ARGV[1]"


def sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
async def asking(valkey: Redis, valkey_url: str) -> AsyncIterator[Valkey]:
    await valkey.script_flush()
    opened = open_valkey(valkey_url, [TWICE])
    yield opened
    await opened.aclose()


@pytest.fixture
async def mortal(socket_dir: Path) -> AsyncIterator[Node]:
    async with mortal_valkey(socket_dir) as node:
        yield node


def is_loss(reply: Any) -> bool:
    return isinstance(reply, DomainError) and reply.reason is Reason.STORE_UNAVAILABLE


async def test_replies_come_in_the_order_of_the_calls_as_the_server_has_them(asking: Valkey) -> None:
    replies = await asking.ask(
        [("SET", "k", b"\x00\xff"), ("GET", "k"), ("INCR", "n"), ("HSET", "h", "f", 1.5), ("HGETALL", "h"), ("GET", "none")]
    )

    assert replies == [b"OK", b"\x00\xff", 1, 1, {b"f": b"1.5"}, None]


async def test_nothing_asked_is_nothing_answered(asking: Valkey) -> None:
    assert await asking.ask([]) == []


async def test_what_the_server_refuses_stands_in_its_place(asking: Valkey) -> None:
    first, refused, last = await asking.ask([("SET", "k", "v"), ("INCR", "k"), ("GET", "k")])

    assert (first, last) == (b"OK", b"v")
    assert isinstance(refused, ResponseError)
    with pytest.raises(DomainError) as raised:
        answered([first, refused, last])
    assert raised.value.reason is Reason.STORE_UNAVAILABLE
    assert answered([first, last]) == [first, last]


async def test_a_script_that_the_server_has_lost_is_loaded_on_the_way(asking: Valkey, valkey: Redis) -> None:
    call = ("EVALSHA", sha(TWICE), 1, "k", b"ab")
    assert await asking.ask([("SET", "k", "v"), call, ("GET", "k"), call]) == [b"OK", b"abab", b"v", b"abab"]

    await valkey.script_flush()

    assert await asking.ask([call]) == [b"abab"]


async def test_a_script_that_nobody_knows_is_a_refusal(asking: Valkey) -> None:
    unknown, known = await asking.ask([("EVALSHA", sha("return 1"), 0), ("EVALSHA", sha(TWICE), 1, "k", "x")])

    assert isinstance(unknown, NoScriptError)
    assert known == b"xx"


async def test_an_argument_that_is_no_word_is_our_own_fault_and_harms_no_connection(asking: Valkey, valkey: Redis) -> None:
    with pytest.raises(TypeError):
        await asking.ask([("SET", "k", np.int64(1))])  # type: ignore[list-item]

    assert await asking.ask([("GET", "k")]) == [None]


async def test_many_callers_share_a_few_connections(asking: Valkey, valkey: Redis) -> None:
    before = len(await valkey.client_list())

    replies = await asyncio.gather(*(asking.ask([("ECHO", number)]) for number in range(200)))

    assert replies == [[str(number).encode()] for number in range(200)]
    assert len(await valkey.client_list()) - before <= CONNECTIONS


async def test_the_address_may_say_how_many_connections(valkey_url: str, valkey: Redis) -> None:
    before = len(await valkey.client_list())
    asking = open_valkey(f"{valkey_url}&max_connections=2&timeout=1")

    replies = await asyncio.gather(*(asking.ask([("ECHO", number)]) for number in range(50)))

    assert replies == [[str(number).encode()] for number in range(50)]
    assert len(await valkey.client_list()) - before <= 2
    await asking.aclose()


async def test_callers_who_give_up_leave_no_reply_to_the_next_and_are_gone(asking: Valkey, valkey: Redis) -> None:
    """Cancelled at any point: while waiting for a connection, connecting, sending, reading, or a moment too late."""
    chance = np.random.default_rng(7)
    before = len(await valkey.client_list())
    wrong: list[Any] = []

    async def talk(name: str, rounds: int) -> None:
        for number in range(rounds):
            words = [f"{name}.{number}.{part}" for part in range(3)]
            replies = await asking.ask([("ECHO", word) for word in words])
            if replies != [word.encode() for word in words]:
                wrong.append((words, replies))

    async def give_up(name: str) -> bool:
        task = asyncio.ensure_future(talk(name, 1_000_000))
        for _ in range(chance.integers(60)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    ended = await asyncio.gather(talk("steady", 200), *(give_up(f"g{number}") for number in range(400)))

    assert ended[1:] == [True] * 400
    assert wrong == []
    assert len(await valkey.client_list()) - before <= CONNECTIONS


async def test_a_dead_node_is_said_to_be_unavailable_and_its_empty_successor_is_found(mortal: Node) -> None:
    asking = open_valkey(mortal.url, [TWICE])
    try:
        assert await asking.ask([("SET", "k", "v")]) == [b"OK"]
        await mortal.kill()
        replies = await asking.ask([("GET", "k"), ("GET", "k")])
        assert [is_loss(reply) for reply in replies] == [True, True]
        with pytest.raises(DomainError):
            answered(replies)

        await mortal.start()

        assert await asking.ask([("GET", "k"), ("EVALSHA", sha(TWICE), 1, "k", "x")]) == [None, b"xx"]
    finally:
        await asking.aclose()


async def test_a_node_that_dies_and_returns_between_two_questions_fails_neither(mortal: Node) -> None:
    asking = open_valkey(mortal.url)
    try:
        await asyncio.gather(*(asking.ask([("SET", f"k{number}", "v")]) for number in range(10)))
        await mortal.kill()
        await mortal.start()

        replies = await asyncio.gather(*(asking.ask([("GET", f"k{number}")]) for number in range(10)))
    finally:
        await asking.aclose()

    assert replies == [[None]] * 10


async def test_a_silent_node_is_waited_for_no_longer_than_the_limit(mortal: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "ANSWER_S", 0.2)
    asking = open_valkey(mortal.url)
    try:
        await asking.ask([("SET", "k", "v")])
        mortal.freeze()
        async with asyncio.timeout(30):
            replies = await asyncio.gather(*(asking.ask([("GET", "k")]) for _ in range(3 * CONNECTIONS)))
        assert all(is_loss(reply) for (reply,) in replies)

        mortal.thaw()
        monkeypatch.undo()

        assert await asking.ask([("GET", "k")]) == [b"v"]
    finally:
        await asking.aclose()


async def test_a_closed_store_keeps_no_connection(valkey_url: str, valkey: Redis) -> None:
    before = len(await valkey.client_list())
    asking = open_valkey(valkey_url)
    await asyncio.gather(*(asking.ask([("PING",)]) for _ in range(5)))

    await asking.aclose()

    async with asyncio.timeout(30):
        while len(await valkey.client_list()) > before:  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0)


def test_an_address_with_an_option_that_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        open_valkey("redis://localhost:1?no_such_option=1")


def test_who_cannot_use_a_cluster_says_so_at_once() -> None:
    with pytest.raises(StoreError, match=r"cannot use a cluster yet.*redis\+cluster://a:1") as refused:
        connect("redis+cluster://me:secret@a:1")

    assert "secret" not in str(refused.value)
