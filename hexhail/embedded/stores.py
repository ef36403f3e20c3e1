"""Which Valkey and PostgreSQL does this process use? Those whose address is given; for the rest, its own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hexhail.embedded.errors import StoreError
from hexhail.embedded.postgres import check_postgres, embedded_postgres
from hexhail.embedded.valkey import check_valkey, embedded_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the stores answer."""

    redis_url: str
    postgres_dsn: str


@asynccontextmanager
async def embedded_stores(
    data_dir: Path, *, redis_url: str | None = None, postgres_dsn: str | None = None, durable: bool = True
) -> AsyncIterator[Stores]:
    """Starts, both at once, the stores that have no address, and checks kind and version of both; they end with the context.

    Call it in the main thread. Without `durable` the embedded PostgreSQL does not wait for the disk: for tests.
    Raises StoreError when a store cannot be started or reached, or is not one that we can work with.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.TaskGroup() as starting:
                valkey = starting.create_task(_valkey(stack, data_dir, redis_url))
                postgres = starting.create_task(_postgres(stack, data_dir, postgres_dsn, durable))
        except ExceptionGroup as group:
            raise _first_store_error(group) from group
        yield Stores(valkey.result(), postgres.result())


async def _valkey(stack: AsyncExitStack, data_dir: Path, url: str | None) -> str:
    if url is None:
        url = await stack.enter_async_context(embedded_valkey(data_dir))
    await check_valkey(url)
    return url


async def _postgres(stack: AsyncExitStack, data_dir: Path, dsn: str | None, durable: bool) -> str:
    if dsn is None:
        dsn = await stack.enter_async_context(embedded_postgres(data_dir, durable=durable))
    await check_postgres(dsn)
    return dsn


def _first_store_error(group: ExceptionGroup) -> Exception:
    return next((error for error in group.exceptions if isinstance(error, StoreError)), group.exceptions[0])
