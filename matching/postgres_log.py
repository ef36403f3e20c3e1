"""The log of events as the relay reads it: what has been committed, and how far it has been told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matching.postgres_store import postgres_errors
from matching.relaying import NOTHING_SEEN, LoggedEvent, Page, Telling

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId
    from matching.postgres_store import Pool

# The snapshot that it asks for is the one by which this statement sees. The numbers only bound the search; `+ 0` keeps the
# planner from walking the whole log by position.
_FIRST_PAGE = """
SELECT position, kind, envelope, pg_current_snapshot()::text AS seeing
  FROM matching.outbox
 WHERE city_id = $1 AND at_ms >= $3
   AND transaction_id >= pg_snapshot_xmin($2::text::pg_snapshot) AND transaction_id < pg_snapshot_xmax(pg_current_snapshot())
   AND NOT pg_visible_in_snapshot(transaction_id, $2::text::pg_snapshot)
 ORDER BY position + 0 LIMIT $4
"""
_NEXT_PAGE = """
SELECT position, kind, envelope
  FROM matching.outbox
 WHERE city_id = $1 AND at_ms >= $3 AND position > $6
   AND NOT pg_visible_in_snapshot(transaction_id, $2::text::pg_snapshot)
   AND pg_visible_in_snapshot(transaction_id, $5::text::pg_snapshot)
 ORDER BY position LIMIT $4
"""
_PROGRESS = "SELECT epoch, from_at_ms, seen, seeing, position, entry_id FROM matching.relays WHERE city_id = $1"
_NOW = "SELECT pg_current_snapshot()::text"
# A term that has passed is not written over one that is.
_RECORD = """
INSERT INTO matching.relays AS r (city_id, term, epoch, from_at_ms, seen, seeing, position, entry_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (city_id) DO UPDATE
   SET term = EXCLUDED.term, epoch = EXCLUDED.epoch, from_at_ms = EXCLUDED.from_at_ms, seen = EXCLUDED.seen,
       seeing = EXCLUDED.seeing, position = EXCLUDED.position, entry_id = EXCLUDED.entry_id
 WHERE r.term <= EXCLUDED.term
"""


class PostgresLog:
    """The outbox, read on from where its telling stands."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def progress(self, city_id: CityId) -> tuple[Telling, str]:
        """How far the log has been told, and a snapshot of now. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            row = await connection.fetchrow(_PROGRESS, city_id)
            now: str = await connection.fetchval(_NOW)
        return Telling(**row) if row else Telling(), now

    async def read(self, city_id: CityId, progress: Telling, limit: int) -> Page:
        """The next events, at most so many; a page of no round where there is nothing to tell. Raises STORE_UNAVAILABLE."""
        first_ms = progress.from_at_ms if progress.seen == NOTHING_SEEN else 0
        statement, values = _FIRST_PAGE, [city_id, progress.seen, first_ms, limit]
        if progress.seeing:
            statement, values = _NEXT_PAGE, [*values, progress.seeing, progress.position]
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(statement, *values)
        seeing = progress.seeing or (rows[0]["seeing"] if rows else "")
        return Page([LoggedEvent(r["position"], r["kind"], r["envelope"]) for r in rows], seeing, len(rows) < limit)

    async def record(self, city_id: CityId, term: int, progress: Telling) -> bool:
        """Keeps how far the log has been told; False where a later term has done so. Raises STORE_UNAVAILABLE."""
        values = (progress.epoch, progress.from_at_ms, progress.seen, progress.seeing, progress.position, progress.entry_id)
        async with postgres_errors(), self._pool.acquire() as connection:
            done = await connection.execute(_RECORD, city_id, term, *values)
        return bool(done == "INSERT 0 1")
