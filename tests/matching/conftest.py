"""A schema that is made once for a file of tests, and emptied for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from matching.schema import ensure_outbox_days, migrate
from tests.matching.rides import NOW_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.embedded import Stores

_TABLES = """
SELECT string_agg(format('matching.%I', relname), ', ') FROM pg_class
 WHERE relnamespace = 'matching'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'
"""


@pytest.fixture(scope="module")
async def schema_dsn(stores: Stores) -> str:
    connection = await asyncpg.connect(stores.postgres_dsn)
    try:
        await connection.execute("DROP SCHEMA IF EXISTS matching CASCADE")
    finally:
        await connection.close()
    await migrate(stores.postgres_dsn)
    return stores.postgres_dsn


@pytest.fixture
async def empty_pool(schema_dsn: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with asyncpg.create_pool(schema_dsn, min_size=1, max_size=12) as pool:
        await pool.execute(f"TRUNCATE {await pool.fetchval(_TABLES)}")
        await ensure_outbox_days(pool, NOW_MS)
        yield pool
