"""A location service on the run's Valkey, with one bucket and with several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.location.world import World, world_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis


@pytest.fixture(params=[1, 4], ids=["one bucket", "four buckets"])
def buckets(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
async def world(valkey: Redis, valkey_url: str, buckets: int) -> AsyncIterator[World]:
    async with world_on(valkey_url, valkey, buckets) as made:
        yield made
