"""Is the schema of matching up to date? Versioned migrations (alembic), one process at a time, and the outbox's days."""

from __future__ import annotations

import datetime as dt
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    import sqlalchemy

    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

_LOCK = 0x6865_7868  # any number that all of our processes agree on
_OUTBOX_DAYS = r"""
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'matching.outbox'::regclass AND c.relname ~ '^outbox_\d{8}$'
"""
_DAY_MS = 24 * 3600 * MS_PER_S


async def migrate(dsn: str) -> None:
    """Brings the schema to the newest version; several processes may ask at once."""

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS matching"))
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


async def ensure_outbox_days(pool: asyncpg.Pool[asyncpg.Record], now_ms: int, days_ahead: int = 2) -> None:
    """Makes the outbox's partitions of today and the coming days, where they are missing.

    What the default partition caught of such a day (after the machine had slept, say) moves there: PostgreSQL would refuse the
    partition otherwise.
    """
    today = now_ms // _DAY_MS
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        for day in range(today, today + days_ahead):
            date = dt.datetime.fromtimestamp(day * 24 * 3600, dt.UTC).strftime("%Y%m%d")
            table = f"matching.outbox_{date}"
            if await connection.fetchval("SELECT to_regclass($1)", table) is None:
                await _make_day(connection, table, day * _DAY_MS, (day + 1) * _DAY_MS)


async def _make_day(connection: Connection, table: str, first_ms: int, end_ms: int) -> None:
    await connection.execute("LOCK TABLE matching.outbox_default IN ACCESS EXCLUSIVE MODE")
    await connection.execute(f"CREATE TABLE {table} (LIKE matching.outbox INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    caught = "DELETE FROM matching.outbox_default WHERE at_ms >= $1 AND at_ms < $2 RETURNING *"
    move = f"WITH caught AS ({caught}) INSERT INTO {table} SELECT * FROM caught"  # noqa: S608 - constants and a date
    await connection.execute(move, first_ms, end_ms)
    await connection.execute(f"ALTER TABLE matching.outbox ATTACH PARTITION {table} FOR VALUES FROM ({first_ms}) TO ({end_ms})")


async def drop_old_outbox_days(pool: asyncpg.Pool[asyncpg.Record], before_ms: int) -> None:
    """Drops the outbox's partitions that hold nothing younger than this."""
    first_kept = dt.datetime.fromtimestamp(before_ms // MS_PER_S, dt.UTC).strftime("outbox_%Y%m%d")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        rows = await connection.fetch(_OUTBOX_DAYS)
        for name in (row["name"] for row in rows):
            if name < first_kept:
                await connection.execute(f"DROP TABLE matching.{name}")


def _upgrade(connection: sqlalchemy.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(resources.files("matching") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
