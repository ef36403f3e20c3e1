"""What does the event log say of who was bound to which ride? The second witness beside what the clients were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from hexhail.api.events.v1 import event_pb2
from simulator.witness import bindings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.witness import Interval

_ASSIGNMENTS = """
SELECT aggregate_id, at_ms, envelope FROM matching.outbox
 WHERE city_id = $1 AND position > $2 AND kind IN ('ASSIGNMENT_BEGAN', 'ASSIGNMENT_ENDED')
 ORDER BY aggregate_id, version, at_ms, index
"""
_END = "SELECT coalesce(max(position), 0) FROM matching.outbox"


async def end_of_log(postgres_dsn: str) -> int:
    """The position of the newest event: what comes later is behind it."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        position: int = await connection.fetchval(_END)
        return position
    finally:
        await connection.close()


async def logged_assignments(postgres_dsn: str, city_id: str, after: int = 0) -> list[Interval]:
    """Every assignment of a city behind this position of the event log."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        rows = await connection.fetch(_ASSIGNMENTS, city_id, after)
    finally:
        await connection.close()
    return intervals_of((row["aggregate_id"], row["at_ms"], event_pb2.Envelope.FromString(row["envelope"])) for row in rows)


def intervals_of(events: Iterable[tuple[str, int, event_pb2.Envelope]]) -> list[Interval]:
    """From accept to release: (ride id, time, envelope) in the order of the log -> intervals."""
    return bindings(_binding(ride_id, at_ms, envelope) for ride_id, at_ms, envelope in events)


def _binding(ride_id: str, at_ms: int, envelope: event_pb2.Envelope) -> tuple[str, int, str, bool]:
    if envelope.HasField("assignment_began"):
        return ride_id, at_ms, envelope.assignment_began.driver_id, True
    return ride_id, at_ms, envelope.assignment_ended.driver_id, False
