"""A location service on the run's Valkey and on its cluster, with one bucket and with several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.location.world import World, world_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis


@pytest.fixture(params=[1, 4], ids=["one bucket", "four buckets"])
def buckets(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What every store keeps, marked `every_store`, is tested on a single node and on a cluster; the rest on a single node."""
    if "store" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("every_store") is not None
        metafunc.parametrize("store", ["single", "cluster"] if everywhere else ["single"], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The address of an empty store, and a client for looking into it."""
    url, client = ("valkey_url", "valkey") if request.param == "single" else ("cluster_url", "valkey_cluster")
    return request.getfixturevalue(url), request.getfixturevalue(client)


@pytest.fixture
async def world(store: tuple[str, Any], buckets: int) -> AsyncIterator[World]:
    url, client = store
    async with world_on(url, client, buckets) as made:
        yield made


@pytest.fixture
async def single_world(valkey: Redis, valkey_url: str, buckets: int) -> AsyncIterator[World]:
    """On a single node, whatever the module's mark."""
    async with world_on(valkey_url, valkey, buckets) as made:
        yield made
