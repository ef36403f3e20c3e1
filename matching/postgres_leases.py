"""Which worker has a duty that only one should have? Leases in PostgreSQL, each change of hands with a new term."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matching.postgres_store import postgres_errors

if TYPE_CHECKING:
    from matching.postgres_store import Pool

_TAKE = """
INSERT INTO matching.leases AS l (duty, owner, term, until_ms) VALUES ($1, $2, 1, $3)
ON CONFLICT (duty) DO UPDATE
   SET owner = EXCLUDED.owner, until_ms = EXCLUDED.until_ms, term = l.term + CASE WHEN l.owner = EXCLUDED.owner THEN 0 ELSE 1 END
 WHERE l.owner = EXCLUDED.owner OR l.until_ms <= $4
RETURNING term
"""
_GIVE_UP = "UPDATE matching.leases SET until_ms = 0 WHERE duty = $1 AND owner = $2"


class PostgresLeases:
    """Leases of this worker. They spare work: whoever acts on a lease that has run out must do no harm by it."""

    def __init__(self, pool: Pool, owner: str) -> None:
        self._pool = pool
        self._owner = owner

    async def take(self, duty: str, now_ms: int, ttl_ms: int) -> int | None:
        """Takes the duty, or keeps it, for so long; the term, or None where another worker has it. Raises STORE_UNAVAILABLE.

        The term grows whenever the duty changes hands: a write that names it can tell that its writer is stale.
        """
        async with postgres_errors(), self._pool.acquire() as connection:
            term: int | None = await connection.fetchval(_TAKE, duty, self._owner, now_ms + ttl_ms, now_ms)
        return term

    async def give_up(self, duty: str) -> None:
        """Lets another worker have it at once. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(_GIVE_UP, duty, self._owner)
