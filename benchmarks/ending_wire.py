"""What does PostgreSQL hold of a city? Its rows and its event log, as the checker of histories reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks.history import FINAL, AssignmentRow, Ending, Logged, OfferRow, RideRow
from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import ride_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

_RIDES = """
SELECT ride_id, rider_id, state, version, next_deadline_ms, coalesce(body->'assignment'->>'driver_id', '') AS driver_id
  FROM matching.rides WHERE city_id = $1
"""
_OFFERS = "SELECT offer_id, ride_id, driver_id, state FROM matching.offers WHERE city_id = $1"
_ASSIGNMENTS = "SELECT ride_id, driver_id, accepted_at_ms, released_at_ms FROM matching.assignments WHERE city_id = $1"
_LOG = "SELECT aggregate_id, version, index, at_ms, kind, envelope FROM matching.outbox WHERE city_id = $1"
_OPEN = "SELECT count(*) FROM matching.rides WHERE city_id = $1 AND state <> ALL($2)"

_FREE = """
SELECT driver_id FROM matching.drivers d
 WHERE city_id = $1 AND online AND NOT suspended
   AND NOT EXISTS (SELECT 1 FROM matching.assignments a
                    WHERE a.city_id = d.city_id AND a.driver_id = d.driver_id AND a.released_at_ms IS NULL)
"""


async def ending_of(postgres_dsn: str, city_id: str, now_ms: int) -> Ending:
    """All that PostgreSQL holds of a city, of one moment. Raises OSError and what asyncpg raises."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rides = await connection.fetch(_RIDES, city_id)
            offers = await connection.fetch(_OFFERS, city_id)
            assignments = await connection.fetch(_ASSIGNMENTS, city_id)
            log = await connection.fetch(_LOG, city_id)
    finally:
        await connection.close()
    return Ending(
        now_ms,
        tuple(RideRow(**row) for row in rides),
        tuple(OfferRow(**row) for row in offers),
        tuple(AssignmentRow(**row) for row in assignments),
        tuple(logged_of(row) for row in log),
    )


async def open_rides(postgres_dsn: str, city_id: str) -> int:
    """How many rides of a city are not final? Raises as `ending_of`."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        count: int = await connection.fetchval(_OPEN, city_id, sorted(FINAL))
        return count
    finally:
        await connection.close()


async def free_drivers(postgres_dsn: str, city_id: str) -> set[str]:
    """Which drivers of a city are online, and on no ride? Raises as `ending_of`."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        return {row["driver_id"] for row in await connection.fetch(_FREE, city_id)}
    finally:
        await connection.close()


def logged_of(row: asyncpg.Record | Mapping[str, Any]) -> Logged:
    """The event that a row of the outbox describes."""
    envelope = event_pb2.Envelope.FromString(row["envelope"])
    kind: str = row["kind"]
    state = ride_pb2.RideState.Name(envelope.ride_state).removeprefix("RIDE_STATE_") if envelope.ride_state else ""
    event = getattr(envelope, kind.lower())
    driver_id = getattr(event, "driver_id", "")
    made = event.offers if kind == "OFFERS_MADE" else ()
    return Logged(
        row["aggregate_id"],
        row["version"],
        row["index"],
        row["at_ms"],
        kind,
        driver_id=driver_id if isinstance(driver_id, str) else "",
        offers=tuple((offer.offer_id, offer.driver_id) for offer in made) or _named(event),
        state=state,
        expires_ms=max((offer.expires_at_ms for offer in made), default=0),
        version_events=envelope.version_events,
    )


def _named(event: Any) -> tuple[tuple[str, str], ...]:
    """The offers that an event names by id: one with its driver, or several alone."""
    if hasattr(event, "offer_ids"):
        return tuple((offer_id, "") for offer_id in event.offer_ids)
    return ((event.offer_id, event.driver_id),) if hasattr(event, "offer_id") else ()
