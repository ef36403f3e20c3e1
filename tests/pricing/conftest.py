"""A Valkey for the run, empty at the start of each test, and a world around pricing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import from_url

from hexhail.embedded import embedded_valkey
from tests.pricing.world import NOON_MS, World, world_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis


@pytest.fixture(scope="session")
async def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with embedded_valkey(tmp_path_factory.mktemp("pricing")) as url:
        yield url


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    async with from_url(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def world(valkey: Redis, valkey_url: str) -> AsyncIterator[World]:
    async with world_at(NOON_MS, valkey_url) as world:
        yield world


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, so that a store started again has the same address."""
    path = Path(tempfile.mkdtemp(prefix="hx", dir="/tmp"))
    yield path
    shutil.rmtree(path)
