"""`hexhail events`: what happens in a city, as JSON lines, from the stream that the relay writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

from hexhail.api.events.v1 import event_pb2
from hexhail.cities import load_city
from hexhail.cli.errors import ServiceError
from hexhail.cli.town import default_city
from hexhail.stores.valkey import connect, valkey_answers
from matching import keys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from pathlib import Path

    from redis.asyncio import Redis

    from hexhail.kernel.settings import Settings

NEW_ONLY: Final = "$"
_MOST: Final = 500
_WAIT_MS: Final = 500


def add_events(
    app: typer.Typer, settings_of: Callable[[Path | None], Settings], finish: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """Adds the command."""

    @app.command("events")
    def events_command(
        city: Annotated[
            str | None, typer.Option("--city", help="Which city; by default manhattan where its data is found, else gridport.")
        ] = None,
        after: Annotated[
            str, typer.Option("--after", help="Begin behind the entry of this id; 0 begins with the oldest that is kept.")
        ] = NEW_ONLY,
        follow: Annotated[bool, typer.Option(help="Go on as events come, or end with the newest there is.")] = True,
        redis: Annotated[str | None, typer.Option(help="The Valkey of the services; by default HEXHAIL_REDIS_URL.")] = None,
    ) -> None:
        """Every event of a city as it is committed, one JSON object a line. `hexhail up` says where a running city's Valkey is.

        Each line has the `id` to go on after. An event comes at least once: (aggregate_id, version, index) tells repeats, and a
        ride's versions count without holes. A line with `epoch` says that the stream began anew, one with `lost_after` that what
        followed your id is not kept any more: the log in PostgreSQL has it.
        """
        settings = settings_of(None)
        url = redis or settings.redis_url
        finish(_print(url, load_city(city or default_city(settings), settings).city_id, after, follow))


async def _print(redis_url: str | None, city_id: str, after: str, follow: bool) -> None:
    if redis_url is None:
        raise ServiceError("name the Valkey of the services with --redis or HEXHAIL_REDIS_URL: `hexhail up` says where it is")
    redis = connect(redis_url)
    try:
        async for line in lines(redis, city_id, after, follow):
            print(json.dumps(line), flush=True)
    finally:
        await redis.aclose()


async def lines(redis: Redis, city_id: str, after: str, follow: bool) -> AsyncGenerator[dict[str, Any], None]:
    """What is printed: each entry behind `after`. Raises STORE_UNAVAILABLE, and ServiceError for an id that is none."""
    key = keys.events(city_id)
    async with valkey_answers():
        newest: Any = await redis.xrevrange(key, count=1)
    if after == NEW_ONLY:
        after = newest[0][0].decode() if newest else "0"
    elif _place(after) > (0, 0):
        async with valkey_answers():
            known: Any = await redis.xrange(key, after, after)
        if not known:
            yield {"lost_after": after}
    while True:
        async with valkey_answers():
            read: Any = await redis.xread({key: after}, count=_MOST, block=_WAIT_MS if follow else None)
        entries = [entry for _, some in read for entry in some]
        for entry_id, fields in entries:
            after = entry_id.decode()
            yield _line(after, fields)
        if not entries and not follow:
            return


def _line(entry_id: str, fields: dict[bytes, bytes]) -> dict[str, Any]:
    if b"epoch" in fields:
        begins = {
            "epoch": fields[b"epoch"].decode(),
            "from_at_ms": int(fields[b"from_at_ms"]),
            "reason": fields[b"reason"].decode(),
        }
        return {"id": entry_id, **begins}
    envelope = event_pb2.Envelope.FromString(fields[b"envelope"])
    return {"id": entry_id, "kind": fields[b"kind"].decode(), **MessageToDict(envelope, preserving_proto_field_name=True)}


def _place(entry_id: str) -> tuple[int, int]:
    """An id as Valkey orders it. Raises ServiceError."""
    ms, _, number = entry_id.partition("-")
    if not (ms.isdigit() and (number.isdigit() or "-" not in entry_id)):
        raise ServiceError(f"--after {entry_id!r} is no id such as 1763751600000-0")
    return int(ms), int(number or 0)
