"""Every key of pricing in Valkey. A city's keys share one hash tag, so that one script may touch them all.

| key | holds | lives |
|---|---|---|
| `{city}:pricing:quotes` | sorted set of `cell:rider` by the time of the last quote, ms | two windows after the last one |
| `{city}:pricing:surge` | the surge as published, packed (`packed.py`) | twice its greatest useful age |
| `{city}:pricing:lease` | who recomputes, and until when: `owner expires_at_ms` | as long as it is renewed |
| `{city}:pricing:published` | sharded channel: a word for every publication | |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId


def quotes_key(city_id: CityId) -> str:
    """Where the recent quotes of a city are."""
    return f"{{{city_id}}}:pricing:quotes"


def surge_key(city_id: CityId) -> str:
    """Where the published surge of a city is."""
    return f"{{{city_id}}}:pricing:surge"


def lease_key(city_id: CityId) -> str:
    """Where it stands who recomputes a city's surge."""
    return f"{{{city_id}}}:pricing:lease"


def published_channel(city_id: CityId) -> str:
    """Where a city's publications are announced."""
    return f"{{{city_id}}}:pricing:published"


def quote_member(cell: int, rider_id: str) -> str:
    """One rider's interest in one cell: asking again does not count twice."""
    return f"{cell:x}:{rider_id}"


def cell_of_member(member: bytes) -> int:
    """The cell of such a member."""
    return int(member.partition(b":")[0], 16)
