"""Which servers we work with, by what they say of themselves."""

from __future__ import annotations

import pytest

from hexhail.embedded.errors import StoreError, shown
from hexhail.embedded.versions import judge_postgres, judge_valkey


@pytest.mark.parametrize(
    ("info", "found", "accepted"),
    [
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, "Valkey 9.1.2", True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.0"}, "Valkey 7.2.0", True),
        ({"redis_version": "7.2.4", "server_name": "valkey"}, "Valkey 7.2.4", True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.9"}, "Valkey 7.1.9", False),
        ({"redis_version": "7.0.0"}, "Redis 7.0.0", True),
        ({"redis_version": "7.0.15", "redis_mode": "cluster"}, "Redis 7.0.15", True),
        ({"redis_version": "8.2-rc1"}, "Redis 8.2-rc1", True),
        ({"redis_version": "10.0.0"}, "Redis 10.0.0", True),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14", False),
        ({"redis_version": "7.4.0", "redis_mode": "sentinel"}, "Redis 7.4.0", False),
        (
            {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.0.0", "server_mode": "sentinel"},
            "Valkey 9.0.0",
            False,
        ),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.30.0"}, "dragonfly", False),
        ({"redis_version": "7.4.3", "garnet_version": "1.0.60"}, "garnet", False),
        ({"redis_version": "7.2.4", "server_name": "other"}, "other", False),
        ({"redis_version": "unstable"}, "Redis unstable", False),
        ({}, "Redis of unknown version", False),
    ],
)
def test_valkey_from_7_2_and_redis_from_7_0_are_accepted(info: dict[str, object], found: str, accepted: bool) -> None:
    verdict = judge_valkey(info)

    assert (verdict.found, verdict.accepted) == (found, accepted)


@pytest.mark.parametrize(
    ("version", "number", "found", "accepted"),
    [
        ("PostgreSQL 18.4 on x86_64-pc-linux-gnu, compiled by gcc", 180004, "PostgreSQL 18.4", True),
        ("PostgreSQL 15.0 (Debian 15.0-1.pgdg110+1) on x86_64", 150000, "PostgreSQL 15.0", True),
        ("PostgreSQL 14.19 on x86_64-pc-linux-gnu", 140019, "PostgreSQL 14.19", False),
        ("PostgreSQL 9.6.24", 90624, "PostgreSQL 9.6.24", False),
        ("CockroachDB CCL v25.1.0", 150000, "CockroachDB CCL v25.1.0", False),
    ],
)
def test_postgresql_is_accepted_from_15(version: str, number: int, found: str, accepted: bool) -> None:
    verdict = judge_postgres(version, number)

    assert (verdict.found, verdict.accepted) == (found, accepted)


def test_an_objection_names_what_was_found_what_is_needed_and_what_to_set() -> None:
    old_redis, old_postgres = judge_valkey({"redis_version": "6.0.1"}), judge_postgres("PostgreSQL 13.1 on", 130001)

    assert old_redis.objection is not None
    assert old_postgres.objection is not None
    for word in ("Redis 6.0.1", ">= 7.2", ">= 7.0", "HEXHAIL_REDIS_URL"):
        assert word in old_redis.objection
    for word in ("PostgreSQL 13.1", ">= 15", "HEXHAIL_POSTGRES_DSN"):
        assert word in old_postgres.objection


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("redis://me:se@cret@cache:6379/0", "redis://cache:6379/0"),
        ("postgresql://me@db/hexhail?password=secret&port=1", "postgresql://db/hexhail?password=...&port=1"),
        ("unix:///run/valkey.sock?db=0", "unix:///run/valkey.sock?db=0"),
        ("not an address", "not an address"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, seen: str) -> None:
    assert shown(address) == seen


def test_a_store_error_is_one_line() -> None:
    assert str(StoreError("first\n  second")) == "first second"
