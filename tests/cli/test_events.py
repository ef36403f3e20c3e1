"""`hexhail events` as it is typed: every event once more to read, from where one stopped, and what is missing is said."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from hexhail.api.events.v1 import event_pb2
from hexhail.cli.errors import ServiceError
from hexhail.cli.events import add_events, lines
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import answered, connect, open_valkey
from matching.redis_scripts import SCRIPTS
from matching.redis_stream import RedisStream
from matching.relaying import LoggedEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from hexhail.stores.valkey import Valkey

CITY = "gridport"


def logged(name: str, version: int) -> LoggedEvent:
    envelope = event_pb2.Envelope(city_id=CITY, aggregate_id=name, version=version, actor="rider/r1")
    envelope.ride_started.driver_id = "d1"
    return LoggedEvent(version, "RIDE_STARTED", envelope.SerializeToString())


@pytest.fixture
async def client(valkey: Redis, valkey_url: str) -> AsyncIterator[Redis]:
    redis = connect(valkey_url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def all_of(redis: Redis, after: str) -> list[dict[str, Any]]:
    return [line async for line in lines(redis, CITY, after, follow=False)]


async def test_each_entry_is_a_line_and_one_goes_on_behind_any(client: Redis, asked: Valkey) -> None:
    stream = RedisStream(asked, CITY, 1_000)
    begun = await stream.begin("e1", 5, "FIRST", "")
    await stream.append(begun, [logged("r1", 1), logged("r1", 2)])
    first, second, third = await all_of(client, "0")
    assert first == {"id": begun, "epoch": "e1", "from_at_ms": 5, "reason": "FIRST"}
    assert {key: second[key] for key in ("kind", "aggregate_id", "version", "actor", "ride_started")} == {
        "kind": "RIDE_STARTED",
        "aggregate_id": "r1",
        "version": "1",
        "actor": "rider/r1",
        "ride_started": {"driver_id": "d1"},
    }
    assert await all_of(client, second["id"]) == [third]
    assert await all_of(client, third["id"]) == []
    assert await all_of(client, "$") == []


async def test_what_is_not_kept_any_more_is_said(client: Redis, asked: Valkey) -> None:
    stream = RedisStream(asked, CITY, 1_000)
    begun = await stream.begin("e1", 0, "FIRST", "")
    gone, kept = [await stream.append(begun, [logged("r1", version)]) for version in (1, 2)]
    await client.xtrim(f"m:events:{{{CITY}}}", minid=str(kept), approximate=False)
    lost, line = await all_of(client, str(gone))
    assert lost == {"lost_after": gone}
    assert line["id"] == kept


async def test_new_ones_come_as_they_are_written(client: Redis, asked: Valkey) -> None:
    stream = RedisStream(asked, CITY, 1_000)
    begun = await stream.begin("e1", 0, "FIRST", "")
    following = lines(client, CITY, "$", follow=True)
    coming = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    written = None
    while not coming.done():
        written = await stream.append(begun, [logged("r1", 1)])
        await asyncio.wait([coming], timeout=0.05)
    assert written is not None
    assert coming.result()["kind"] == "RIDE_STARTED"
    await following.aclose()


async def test_an_id_that_is_none_is_refused(client: Redis) -> None:
    for wrong in ("yesterday", "1-", "1-x", "-1"):
        with pytest.raises(ServiceError, match="is no id"):
            await all_of(client, wrong)


def test_the_command_prints_lines_and_needs_to_know_the_store(valkey_url: str) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)

    def finish(work: Any) -> Any:
        try:
            return asyncio.run(work)
        except ServiceError as error:
            print(error)
            raise typer.Exit(1) from None

    async def fill() -> None:
        async with aclosing(open_valkey(valkey_url, SCRIPTS)) as asked:
            answered(await asked.ask([("FLUSHALL",)]))
            stream = RedisStream(asked, CITY, 1_000)
            await stream.append(await stream.begin("e1", 0, "FIRST", ""), [logged("r1", 1)])

    add_events(app, lambda _folder: Settings(redis_url=None), finish)
    asyncio.run(fill())
    words = ["events", "--city", CITY, "--after", "0", "--no-follow"]
    printed = CliRunner().invoke(app, [*words, "--redis", valkey_url])
    assert printed.exit_code == 0, printed.output
    assert [json.loads(line).get("kind") for line in printed.output.splitlines()] == [None, "RIDE_STARTED"]
    without = CliRunner().invoke(app, words)
    assert without.exit_code == 1
    assert "HEXHAIL_REDIS_URL" in without.output
