"""What the embedded stores promise while their parent lives."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from redis.asyncio import Redis

from hexhail.embedded import (
    StoreError,
    check_postgres,
    check_valkey,
    embedded_postgres,
    embedded_stores,
    embedded_valkey,
)
from hexhail.embedded.folder import fits_a_socket

if TYPE_CHECKING:
    from collections.abc import Callable


async def fetch(dsn: str, *statements: str) -> object:
    """The value of the last statement."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def refusal(data_dir: Path, **addresses: str) -> str:
    """The message with which the stores are refused."""
    with pytest.raises(StoreError) as refused:
        async with embedded_stores(data_dir, durable=False, **addresses):
            pass
    message = str(refused.value)
    assert "\n" not in message
    return message


async def test_both_stores_serve_without_a_port(data_dir: Path, living: Callable[[Path], list[str]]) -> None:
    async with embedded_stores(data_dir, durable=False) as stores:
        async with Redis.from_url(stores.redis_url) as valkey:
            assert await valkey.set("key", "value")
            assert (await valkey.config_get("port"))["port"] == "0"
        assert await fetch(stores.postgres_dsn, "SELECT current_database()") == "hexhail"
        assert await fetch(stores.postgres_dsn, "SHOW listen_addresses") == ""
        assert await fetch(stores.postgres_dsn, "SHOW server_encoding") == "UTF8"
        assert living(data_dir)

    assert living(data_dir) == []


async def test_every_process_names_the_data_folder(data_dir: Path, living: Callable[[Path], list[str]]) -> None:
    async with embedded_stores(data_dir, durable=False):
        assert all(str(data_dir) in command for command in living(data_dir))


async def test_two_stacks_at_once_do_not_collide(data_dir: Path) -> None:
    other_dir = data_dir.with_name("other")
    async with embedded_stores(data_dir, durable=False) as one, embedded_stores(other_dir, durable=False) as two:
        for number, stores in enumerate((one, two)):
            async with Redis.from_url(stores.redis_url) as valkey:
                await valkey.set("who", number)
            await fetch(stores.postgres_dsn, f"CREATE TABLE who AS SELECT {number} AS number", "SELECT 1")

        for number, stores in enumerate((one, two)):
            async with Redis.from_url(stores.redis_url) as valkey:
                assert await valkey.get("who") == str(number).encode()
            assert await fetch(stores.postgres_dsn, "SELECT number FROM who") == number


async def test_a_folder_in_use_is_refused_and_its_holder_goes_on(data_dir: Path) -> None:
    async with embedded_stores(data_dir, durable=False) as stores:
        assert "in use by another process" in await refusal(data_dir)

        await check_valkey(stores.redis_url)
        await check_postgres(stores.postgres_dsn)


async def test_postgres_keeps_its_data_and_valkey_starts_empty(data_dir: Path) -> None:
    async with embedded_stores(data_dir, durable=False) as stores:
        await fetch(stores.postgres_dsn, "CREATE TABLE kept AS SELECT 7 AS number", "SELECT 1")
        async with Redis.from_url(stores.redis_url) as valkey:
            await valkey.set("key", "value")

    async with embedded_stores(data_dir, durable=False) as stores:
        assert await fetch(stores.postgres_dsn, "SELECT number FROM kept") == 7
        async with Redis.from_url(stores.redis_url) as valkey:
            assert await valkey.dbsize() == 0


@pytest.mark.parametrize("name", ["x" * 120, "a folder, 100% \N{LATIN SMALL LETTER E WITH ACUTE}?&=#@"])
async def test_sockets_move_to_a_short_private_folder_when_the_path_will_not_do(data_dir: Path, name: str) -> None:
    async with embedded_stores(data_dir / name, durable=False) as stores:
        socket_dirs = [
            Path(stores.redis_url.removeprefix("unix://").split("?")[0]).parent,
            Path(stores.postgres_dsn.split("host=")[1].split("&")[0]),
        ]
        for socket_dir in socket_dirs:
            assert fits_a_socket(socket_dir)
            assert socket_dir.stat().st_mode & 0o777 == 0o700

    assert not any(socket_dir.exists() for socket_dir in socket_dirs)


def test_a_socket_path_ends_at_107_bytes() -> None:
    name_bytes = len("/.s.PGSQL.5432")

    assert fits_a_socket(Path("/" + "x" * (107 - name_bytes - 1)))
    assert not fits_a_socket(Path("/" + "x" * (107 - name_bytes)))


async def test_given_addresses_are_used_and_nothing_is_started(data_dir: Path) -> None:
    unused = data_dir.with_name("unused")
    async with (
        embedded_valkey(data_dir) as redis_url,
        embedded_postgres(data_dir, durable=False) as dsn,
        embedded_stores(unused, redis_url=redis_url, postgres_dsn=dsn) as stores,
    ):
        assert (stores.redis_url, stores.postgres_dsn) == (redis_url, dsn)
        assert not unused.exists()


async def test_a_dead_valkey_address_is_an_error_that_ends_the_other_store(
    data_dir: Path, living: Callable[[Path], list[str]]
) -> None:
    message = await refusal(data_dir, redis_url=f"unix://me:secret@{data_dir}/none.sock?db=0")

    assert "no Valkey or Redis answers" in message
    assert "HEXHAIL_REDIS_URL" in message
    assert "secret" not in message
    assert living(data_dir) == []


@pytest.mark.parametrize("dsn", ["postgresql://me:secret@/db?host={}/none", "postgresql://me:secret@localhost:1/db", "db"])
async def test_a_dead_postgres_address_is_an_error(data_dir: Path, dsn: str) -> None:
    with pytest.raises(StoreError, match=r"no PostgreSQL answers .*HEXHAIL_POSTGRES_DSN") as refused:
        await check_postgres(dsn.format(data_dir))

    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://localhost:1", "cache", "redis://[", "redis://localhost:port"])
async def test_a_dead_or_senseless_valkey_address_is_an_error(url: str) -> None:
    with pytest.raises(StoreError, match=r"no Valkey or Redis answers .*HEXHAIL_REDIS_URL"):
        await check_valkey(url)


async def test_a_data_folder_that_cannot_be_made_is_an_error(data_dir: Path) -> None:
    await asyncio.to_thread(data_dir.write_text, "a file")

    message = await refusal(data_dir / "below")

    assert "cannot be used" in message
    assert str(data_dir) in message


@pytest.mark.parametrize("name", ["valkey", "postgres"])
async def test_a_file_where_a_store_has_its_folder_is_an_error(
    data_dir: Path, living: Callable[[Path], list[str]], name: str
) -> None:
    (data_dir / name).parent.mkdir()
    (data_dir / name).write_text("a file")

    assert str(data_dir / name) in await refusal(data_dir)
    assert living(data_dir) == []


async def test_a_failing_start_tells_the_servers_reason_and_leaves_nothing(
    data_dir: Path, living: Callable[[Path], list[str]]
) -> None:
    async with embedded_postgres(data_dir, durable=False):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("nonsense")

    message = await refusal(data_dir)

    assert "PostgreSQL ended with exit code 1 while starting" in message
    assert "is not a valid data directory" in message
    assert living(data_dir) == []


async def test_a_half_made_data_folder_is_made_anew(data_dir: Path) -> None:
    unfinished = data_dir / "postgres.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18")

    async with embedded_postgres(data_dir, durable=False) as dsn:
        assert await fetch(dsn, "SELECT 1") == 1


async def test_a_stale_pid_file_whose_number_was_given_away_does_not_prevent_the_start(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, durable=False):
        note = (data_dir / "postgres" / "postmaster.pid").read_text()
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    _, rest = note.split("\n", 1)
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n{rest}")
    try:
        async with embedded_postgres(data_dir, durable=False) as dsn:
            assert await fetch(dsn, "SELECT 1") == 1
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.parametrize("durable", [True, False])
async def test_commits_wait_for_the_disk_unless_told_otherwise(data_dir: Path, durable: bool) -> None:
    async with embedded_postgres(data_dir, durable=durable) as dsn:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await fetch(dsn, f"SHOW {setting}") == ("on" if durable else "off")


async def test_the_stores_end_with_an_exception(data_dir: Path, living: Callable[[Path], list[str]]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with embedded_stores(data_dir, durable=False):
            raise ZeroDivisionError

    assert living(data_dir) == []


async def test_the_stores_end_with_clients_still_connected(data_dir: Path, living: Callable[[Path], list[str]]) -> None:
    async with embedded_postgres(data_dir, durable=False) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute("BEGIN")

    assert living(data_dir) == []
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("seen", ["initdb", "bin/postgres -D", "ready"])
async def test_a_cancelled_start_leaves_nothing(
    data_dir: Path, living: Callable[[Path], list[str]], until: Callable[..., None], seen: str
) -> None:
    ready = asyncio.Event()

    async def hold() -> None:
        async with embedded_stores(data_dir, durable=False):
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    async with asyncio.timeout(15):
        while not ready.is_set() and not any(seen in command for command in living(data_dir)):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    until(lambda: not living(data_dir), within_s=2.0)
    async with embedded_stores(data_dir, durable=False):
        pass


async def test_a_thread_that_may_end_before_the_process_cannot_start_stores(data_dir: Path) -> None:
    messages: list[str] = []

    async def start() -> None:
        messages.append(await refusal(data_dir))

    thread = threading.Thread(target=lambda: asyncio.run(start()))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert "main thread" in messages[0]
