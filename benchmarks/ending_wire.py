"""What does PostgreSQL hold of a city? Its rows and its event log, as the checker of histories reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from benchmarks.history import FINAL, AssignmentRow, Ending, Logged, OfferRow, RideRow
from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import ride_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RIDES = """
SELECT ride_id, rider_id, state, version, next_deadline_ms, coalesce(body->'assignment'->>'driver_id', '') AS driver_id
  FROM matching.rides WHERE city_id = $1
"""
_OFFERS = "SELECT offer_id, ride_id, driver_id, state FROM matching.offers WHERE city_id = $1"
_ASSIGNMENTS = "SELECT ride_id, driver_id, accepted_at_ms, released_at_ms FROM matching.assignments WHERE city_id = $1"
_LOG = "SELECT aggregate_id, version, index, at_ms, kind, envelope FROM matching.outbox WHERE city_id = $1"
_OPEN = "SELECT count(*) FROM matching.rides WHERE city_id = $1 AND state <> ALL($2)"

_GIVES_BACK = frozenset(
    {event_pb2.ASSIGNMENT_END_REASON_CANCELLED_BY_DRIVER, event_pb2.ASSIGNMENT_END_REASON_REASSIGNED},
)


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


def logged_of(row: asyncpg.Record | Mapping[str, Any]) -> Logged:
    """The event that a row of the outbox describes."""
    envelope = event_pb2.Envelope.FromString(row["envelope"])
    place = (row["aggregate_id"], row["version"], row["index"], row["at_ms"], row["kind"])
    read = _READ.get(row["kind"])
    return Logged(*place) if read is None else read(envelope, place)


def _offers_made(envelope: event_pb2.Envelope, place: tuple[str, int, int, int, str]) -> Logged:
    made = envelope.offers_made.offers
    expires_ms = max((offer.expires_at_ms for offer in made), default=0)
    return Logged(*place, offers=tuple((offer.offer_id, offer.driver_id) for offer in made), expires_ms=expires_ms)


def _offers_expired(envelope: event_pb2.Envelope, place: tuple[str, int, int, int, str]) -> Logged:
    return Logged(*place, offers=tuple((offer_id, "") for offer_id in envelope.offers_expired.offer_ids))


def _offer_declined(envelope: event_pb2.Envelope, place: tuple[str, int, int, int, str]) -> Logged:
    declined = envelope.offer_declined
    return Logged(*place, declined.driver_id, offers=((declined.offer_id, declined.driver_id),))


def _ended(envelope: event_pb2.Envelope, place: tuple[str, int, int, int, str]) -> Logged:
    ended = envelope.assignment_ended
    return Logged(*place, ended.driver_id, gives_back=ended.reason in _GIVES_BACK)


def _state(state: ride_pb2.RideState.ValueType) -> str:
    return ride_pb2.RideState.Name(state).removeprefix("RIDE_STATE_")


_READ: dict[str, Callable[[event_pb2.Envelope, tuple[str, int, int, int, str]], Logged]] = {
    "RIDE_REQUESTED": lambda envelope, place: Logged(*place, state=_state(envelope.ride_requested.ride.state)),
    "RIDE_CANCELLED": lambda envelope, place: Logged(*place, state=_state(envelope.ride_cancelled.state)),
    "OFFERS_MADE": _offers_made,
    "OFFERS_EXPIRED": _offers_expired,
    "OFFER_DECLINED": _offer_declined,
    "ASSIGNMENT_BEGAN": lambda envelope, place: Logged(*place, envelope.assignment_began.driver_id),
    "ASSIGNMENT_ENDED": _ended,
}
