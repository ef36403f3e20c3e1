"""A cluster's address, its slots, and the slot of a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from hexhail.stores.address import address_of, at_node, cluster_seeds
from hexhail.stores.slots import SLOTS, SlotMap, slot_map, slot_of


@pytest.mark.parametrize(
    ("url", "seeds"),
    [
        ("redis+cluster://a:7000", ("redis://a:7000",)),
        ("redis+cluster://a:7000,b", ("redis://a:7000", "redis://b")),
        ("redis+cluster://[::1]:7000,b:1/", ("redis://[::1]:7000", "redis://b:1")),
        ("redis+cluster://a:1/0", ("redis://a:1",)),
        (
            "rediss+cluster://me:p%2Cw@a:1,b:2?ssl_cert_reqs=none",
            tuple(f"rediss://me:p%2Cw@{n}?ssl_cert_reqs=none" for n in ("a:1", "b:2")),
        ),
        ("redis://a:7000", ()),
        ("rediss://a:7000/1", ()),
        ("unix:///run/valkey.sock?db=0", ()),
    ],
)
def test_the_scheme_says_whether_it_is_a_cluster(url: str, seeds: tuple[str, ...]) -> None:
    assert cluster_seeds(url) == seeds


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://a:1,,b:2",
        "redis+cluster://a:1/3",
        "redis+cluster://a:1?db=3",
        "unix+cluster:///run/valkey.sock",
    ],
)
def test_a_senseless_cluster_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="cluster"):
        cluster_seeds(url)


def test_other_nodes_are_asked_as_the_seed_is() -> None:
    seed = "rediss://me:p%40w@a:1?ssl_cert_reqs=none"

    assert at_node(seed, ("10.0.0.1", 7001)) == "rediss://me:p%40w@10.0.0.1:7001?ssl_cert_reqs=none"
    assert at_node(seed, ("fd00::1", 7001)) == "rediss://me:p%40w@[fd00::1]:7001?ssl_cert_reqs=none"
    assert address_of("redis://me:pw@a:7") == ("a", 7)
    assert address_of("redis://a") == ("a", 6379)


def test_a_reply_becomes_a_map_with_its_gaps() -> None:
    reply = [
        [11_000, SLOTS - 1, [b"c", 3, b"id"]],
        [0, 4_999, [b"a", 1, b"id", [b"hostname", b"x"]], [b"r", 9, b"id"]],
        [5_000, 9_999, [b"", 2, b"id"]],
    ]

    slots = slot_map(reply, "here")

    assert [slots.owner(slot) for slot in (0, 4_999, 5_000, 9_999, 10_000, 10_999, 11_000, SLOTS - 1)] == [
        *[("a", 1)] * 2,
        *[("here", 2)] * 2,
        *[None] * 2,
        *[("c", 3)] * 2,
    ]
    assert slots.covered == SLOTS - 1_000
    assert slots.primaries == [("a", 1), ("c", 3), ("here", 2)]
    assert slots.nodes == {("a", 1), ("r", 9), ("here", 2), ("c", 3)}


def test_nothing_is_known_of_an_empty_map() -> None:
    for slots in (SlotMap(), slot_map([], "here")):
        assert (slots.owner(0), slots.owner(SLOTS - 1), slots.covered, slots.primaries) == (None, None, 0, [])


@given(st.sets(st.integers(1, SLOTS - 1), max_size=20), st.data())
def test_every_slot_is_found_in_its_range(cuts: set[int], data: st.DataObject) -> None:
    starts = [0, *sorted(cuts)]
    ranges = list(zip(starts, [*(start - 1 for start in starts[1:]), SLOTS - 1], strict=True))
    kept = [one for one in ranges if data.draw(st.booleans())]
    slots = slot_map(data.draw(st.permutations([[*one, [b"n", one[0], b"id"]] for one in kept])), "here")

    for slot in (*starts, *(last for _, last in ranges)):
        expected = next((("n", first) for first, last in kept if first <= slot <= last), None)
        assert slots.owner(slot) == expected
    assert slots.covered == sum(last - first + 1 for first, last in kept)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (("GET", "{a}1"), b"{a}1"),
        (("get", b"x"), b"x"),
        (("MGET", "x", "x"), b"x"),
        (("EVALSHA", "sha", 2, "{b}1", "{b}2", "argument"), b"{b}1"),
        (("evalsha", "sha", b"1", "k"), b"k"),
        (("FCALL", "f", 1, b"k"), b"k"),
        (("HGET", 7, "f"), b"7"),
        (("EVAL", "return 1", 0, "argument"), None),
        (("PING",), None),
    ],
)
def test_a_call_goes_where_its_first_key_is(call: tuple[str | bytes | int, ...], key: bytes | None) -> None:
    assert slot_of(call) == (None if key is None else key_slot(key))
