"""A world around pricing, on an empty Valkey."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pricing.world import NOON_MS, World, world_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio import Redis


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
