"""Which node of a cluster holds a key? What CLUSTER SLOTS says, and the key of a call."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.crc import key_slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.stores.address import Address
    from hexhail.stores.line import Call

SLOTS: Final = 16_384

_KEYS_COUNTED: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who holds which slots.

    `owners[i]` holds the slots from `starts[i]` to the next start; None where nobody does. `nodes` are all nodes named, replicas
    too.
    """

    starts: tuple[int, ...] = (0,)
    owners: tuple[Address | None, ...] = (None,)
    nodes: frozenset[Address] = frozenset()

    def owner(self, slot: int) -> Address | None:
        """The primary that holds this slot."""
        return self.owners[bisect_right(self.starts, slot) - 1]

    @property
    def primaries(self) -> list[Address]:
        """All primaries with slots, each once, in order."""
        return sorted({owner for owner in self.owners if owner is not None})

    @property
    def covered(self) -> int:
        """How many slots have a primary?"""
        ends = (*self.starts[1:], SLOTS)
        return sum(end - start for start, end, owner in zip(self.starts, ends, self.owners, strict=True) if owner is not None)


def slot_map(reply: Sequence[Sequence[Any]], host: str) -> SlotMap:
    """What a reply to CLUSTER SLOTS says, given by the node at `host`: a node that does not know its own name is there."""
    starts: list[int] = []
    owners: list[Address | None] = []
    nodes: set[Address] = set()
    free_from = 0
    for first, last, *named in sorted(reply, key=lambda entry: int(entry[0])):
        addresses = [_address(node, host) for node in named]
        if first > free_from:
            starts.append(free_from)
            owners.append(None)
        starts.append(first)
        owners.append(addresses[0])
        nodes |= set(addresses)
        free_from = last + 1
    if free_from < SLOTS:
        starts.append(free_from)
        owners.append(None)
    return SlotMap(tuple(starts), tuple(owners), frozenset(nodes))


def slot_of(call: Call) -> int | None:
    """The slot of a call: its first key's. None for a call without a key, which any node can answer."""
    name = call[0]
    if (name if isinstance(name, str) else str(name)).upper() in _KEYS_COUNTED:
        key = call[3] if int(call[2]) else None
    else:
        key = call[1] if len(call) > 1 else None
    if key is None:
        return None
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _address(node: Sequence[Any], host: str) -> Address:
    name = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (host if name in (None, "", "?") else name), int(node[1])
