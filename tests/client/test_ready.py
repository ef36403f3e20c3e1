"""A city is open once rides can be priced and requested."""

from __future__ import annotations

import pytest

from hexhail.client import Addresses, Role, RpcError, until_open
from hexhail.kernel.errors import DomainError, Reason
from tests.client.fakes import Script, fake_city, token

DESK = token(Role.OPERATOR, "desk")


async def test_an_open_city_is_open_at_once() -> None:
    async with fake_city(Script()) as addresses:
        await until_open(addresses, "gridport", DESK)


async def test_it_waits_for_surge_to_be_known_and_for_matching_to_reach_its_store() -> None:
    script = Script(
        {
            "GetSurge": [DomainError(Reason.SURGE_UNKNOWN) for _ in range(6)],
            "GetDriver": [DomainError(Reason.STORE_UNAVAILABLE) for _ in range(6)],
        }
    )
    async with fake_city(script) as addresses:
        await until_open(addresses, "gridport", DESK)
    assert not any(script.refuse.values())


async def test_where_waiting_is_of_no_use_it_says_so_at_once() -> None:
    async with fake_city(Script({"GetSurge": [DomainError(Reason.UNKNOWN_CITY)]})) as addresses:
        with pytest.raises(DomainError) as caught:
            await until_open(addresses, "atlantis", DESK)
    assert caught.value.reason is Reason.UNKNOWN_CITY


async def test_closed_doors_are_an_error_when_the_time_is_over() -> None:
    with pytest.raises(RpcError, match="UNAVAILABLE"):
        await until_open(Addresses("unix:/nowhere/a", "unix:/nowhere/b", "unix:/nowhere/c"), "gridport", DESK, within_s=0.0)
