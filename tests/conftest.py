"""One real Valkey, one real cluster and one real PostgreSQL for the whole run, where needed; each test begins with empty ones."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from hypothesis import settings
from redis.asyncio import Redis, RedisCluster

from hexhail.embedded import Stores, embedded_stores
from hexhail.rpc.logs import configure_logs
from hexhail.stores.valkey import open_valkey
from matching.redis_scripts import SCRIPTS
from tests.stores.nodes import RunningCluster, embedded_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.stores.valkey import Valkey

configure_logs("tests", "console", "warning")

# The same examples in every run, and no verdict on how fast the machine is. `--hypothesis-profile=default` looks further.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")

DATA_DIR = Path(os.environ.get("HEXHAIL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
async def stores(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stores]:
    async with embedded_stores(tmp_path_factory.mktemp("stores"), durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def valkey_url(stores: Stores) -> str:
    return stores.redis_url


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def asked(valkey: Redis, valkey_url: str) -> AsyncIterator[Valkey]:
    """The same store, as matching asks it."""
    async with aclosing(open_valkey(valkey_url, SCRIPTS)) as opened:
        yield opened


@pytest.fixture(scope="session")
async def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCluster]:
    """Three primaries, for tests that leave them as they are."""
    async with embedded_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def cluster_url(running_cluster: RunningCluster) -> str:
    return running_cluster.url


@pytest.fixture
async def valkey_cluster(running_cluster: RunningCluster) -> AsyncIterator[RedisCluster]:
    await running_cluster.flush()
    async with RedisCluster.from_url(running_cluster.primaries[0].url) as client:
        yield client


@pytest.fixture
async def postgres_dsn(stores: Stores) -> str:
    connection = await asyncpg.connect(stores.postgres_dsn)
    try:
        await connection.execute("DROP SCHEMA IF EXISTS matching CASCADE")
    finally:
        await connection.close()
    return stores.postgres_dsn


@pytest.fixture(scope="session")
def data_dir() -> Path:
    if not (DATA_DIR / "manhattan").is_dir():
        pytest.skip(f"needs the real data: HEXHAIL_DATA names {DATA_DIR}, which is not there")
    return DATA_DIR
