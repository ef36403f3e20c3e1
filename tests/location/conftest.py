"""A Valkey for the run, and a location service on it, empty at the start of each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio import from_url

from hexhail.embedded import embedded_valkey
from tests.location.world import World, world_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis


@pytest.fixture(scope="session")
async def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with embedded_valkey(tmp_path_factory.mktemp("location")) as url:
        yield url


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    async with from_url(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=[1, 4], ids=["one bucket", "four buckets"])
def buckets(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
async def world(valkey: Redis, valkey_url: str, buckets: int) -> AsyncIterator[World]:
    async with world_on(valkey_url, valkey, buckets) as made:
        yield made
