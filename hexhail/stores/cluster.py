"""How is a cluster asked? Each node at once for what it holds; moved slots are followed, a lost node fails its own calls only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError

from hexhail.stores.address import Address, address_of, at_node
from hexhail.stores.line import NotReached
from hexhail.stores.slots import SlotMap, slot_map, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hexhail.stores.line import Call, Line

UNSETTLED: Final = (AskError, TryAgainError, ClusterDownError)
"""What a cluster says of itself, and not of the call. A MovedError is an AskError."""

_AGAIN: Final = (AskError, TryAgainError, NotReached)
_ROUNDS: Final = 5
_PAUSE_S: Final = 0.05
_LEARN_S: Final = 0.5
_LEARN_GAP_S: Final = 0.1

_Party: TypeAlias = tuple[Address, bool]
"""A node, and whether it is asked for a slot that is still on its way there."""


class Cluster:
    """A cluster, as one of its nodes describes it; described anew whenever it turns out to be otherwise.

    A call is asked again only where it was certainly not carried out: where its slot has moved, or where its node cannot be
    connected to and another has taken its place. redis-py's own pipeline asks again whatever failed, and closes the connections
    to all nodes under their callers when one node is lost; so this is ours, down to redis-py's connections.
    """

    def __init__(self, seeds: Sequence[str], line_to: Callable[[str], Line]) -> None:
        """`seeds` are URLs of some of its nodes; `line_to` makes a line to the node of a URL."""
        self._seeds = tuple(seeds)
        self._seed_addresses = tuple(address_of(seed) for seed in seeds)
        self._line_to = line_to
        self._lines: dict[Address, Line] = {}
        self._map = SlotMap()
        self._moved: dict[int, Address] = {}
        self._stale = True
        self._why_unknown = ""
        self._doubted: Address | None = None
        self._learning = asyncio.Lock()
        self._learns = 0
        self._learn_from = 0.0

    async def ask(self, calls: Sequence[Call], answer_s: float) -> list[Any]:
        """All replies, in order, within `answer_s` seconds; in the place of one that there is not, the exception it failed by."""
        deadline = asyncio.get_running_loop().time() + answer_s
        asked = _Asked(calls)
        waiting: Sequence[int] = range(len(calls))
        for attempt in range(_ROUNDS):
            await self._refresh(deadline)
            parties = self._parties(asked, waiting)
            if not parties:
                break
            if len(parties) == 1:
                await self._ask_party(asked, *parties.popitem(), deadline)
            else:
                await asyncio.gather(*(self._ask_party(asked, *party, deadline) for party in parties.items()))
            waiting = [row for row in waiting if isinstance(asked.replies[row], _AGAIN)]
            if not waiting:
                break
            if any(isinstance(asked.replies[row], TryAgainError) for row in waiting):
                await asyncio.sleep(attempt * _PAUSE_S)
        return asked.replies

    async def aclose(self) -> None:
        """Closes all connections, those in use when their callers are done."""
        for line in tuple(self._lines.values()):
            await line.close()

    def _parties(self, asked: _Asked, rows: Sequence[int]) -> dict[_Party, list[int]]:
        """Who is asked which rows? Nobody those whose node was out of reach a moment ago."""
        parties: defaultdict[_Party, list[int]] = defaultdict(list)
        for row in rows:
            reply = asked.replies[row]
            on_its_way = isinstance(reply, AskError) and not isinstance(reply, MovedError)
            address = self._named(reply, asked.asked_of[row]) if on_its_way else self._owner(asked.slots[row])
            if address is None:
                asked.replies[row] = NotReached(self._why_unknown)
            elif address not in asked.unreachable:
                parties[address, on_its_way].append(row)
        return parties

    async def _ask_party(self, asked: _Asked, party: _Party, rows: Sequence[int], deadline: float) -> None:
        address, on_its_way = party
        calls = [asked.calls[row] for row in rows]
        if on_its_way:
            calls = [word for call in calls for word in (("ASKING",), call)]
        line = self._line(address)
        try:
            async with asyncio.timeout_at(deadline):
                replies = await line.exchange(calls)
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            await line.hang_up()
            self._doubt(address)
            if isinstance(error, NotReached):
                asked.unreachable.add(address)
            replies = [error] * len(calls)
        for row, reply in zip(rows, replies[1::2] if on_its_way else replies, strict=True):
            asked.replies[row] = reply
            asked.asked_of[row] = address
            if isinstance(reply, MovedError):
                self._moved[reply.slot_id] = self._named(reply, address)
                self._stale = True
            elif isinstance(reply, ClusterDownError):
                self._stale = True

    def _owner(self, slot: int | None) -> Address | None:
        if slot is None:
            return next(iter(self._map.primaries), None)
        return self._moved.get(slot) or self._map.owner(slot)

    @staticmethod
    def _named(redirection: AskError, by: Address | None) -> Address:
        host, port = redirection.node_addr
        return (host or (by[0] if by else "")), port

    def _line(self, address: Address) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = self._line_to(at_node(self._seeds[0], address))
        return line

    def _doubt(self, address: Address) -> None:
        self._stale = True
        self._doubted = address

    async def _refresh(self, deadline: float) -> None:
        """Has the cluster described again, if there is reason to; many askers wait for one description."""
        if not self._stale:
            return
        learns = self._learns
        try:
            async with asyncio.timeout_at(deadline), self._learning:
                if self._learns == learns and asyncio.get_running_loop().time() >= self._learn_from:
                    await self._learn()
        except TimeoutError:
            return  # whoever asks now is out of time as well, and says so

    async def _learn(self) -> None:
        """Asks one node after the other until one knows; the one that was lost comes last."""
        known = [*sorted(self._map.nodes), *self._seed_addresses]
        shift = self._learns % len(known)
        order = sorted(dict.fromkeys(known[shift:] + known[:shift]), key=lambda address: address == self._doubted)
        self._learns += 1
        for address in order:
            line = self._line(address)
            try:
                async with asyncio.timeout(_LEARN_S):
                    (reply,) = await line.exchange([("CLUSTER", "SLOTS")])
            except (RedisError, OSError) as error:
                await line.hang_up()
                reply = error
            if isinstance(reply, Exception):
                self._why_unknown = f"no node of the cluster describes it: {str(reply) or type(reply).__name__}"
            elif not reply:
                self._why_unknown = "no node of the cluster knows of slots"  # one that has come back without its memory
            else:
                self._map, self._moved, self._stale = slot_map(reply, address[0]), {}, False
                self._why_unknown = "a part of the cluster has no primary"
                break
        self._learn_from = asyncio.get_running_loop().time() + _LEARN_GAP_S
        for address in self._lines.keys() - self._map.nodes:
            await self._lines.pop(address).close()


class _Asked:
    """What has become of the calls of one question so far."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.slots = [slot_of(call) for call in calls]
        self.replies: list[Any] = [None] * len(calls)
        self.asked_of: list[Address | None] = [None] * len(calls)
        self.unreachable: set[Address] = set()
