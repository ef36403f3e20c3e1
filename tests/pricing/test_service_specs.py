"""The same case tables as for the pure functions, through gRPC and a real Valkey."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.api.pricing.v1 import quote_pb2
from hexhail.kernel.geo import cell_of, centre_of
from pricing.repricer import Outcome
from tests.pricing.world import PICKUP, TESTPORT, cells_inside, city, spec, world_at

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tests.pricing.world import World

FARES = spec("fare")
SURGES = spec("surge")["cases"]

# What the surge table says about how to come by a multiplier, for the cases of the fare table.
DEMAND_FOR = {case["multiplier_milli"]: case for case in SURGES if not case["recent_quotes"]}


@pytest.mark.parametrize("case", FARES["cases"], ids=lambda case: case["name"])
async def test_each_fare_of_the_table_is_quoted(case: dict[str, Any], valkey: Redis, valkey_url: str) -> None:
    at_ms = round(datetime.fromisoformat(case["at"]).timestamp() * 1000)
    async with world_at(at_ms, valkey_url) as world:
        scarce = DEMAND_FOR[case["multiplier_milli"]]
        cell = cell_of(PICKUP, 8)
        world.peers.supply = {cell: scarce["supply"]}
        world.peers.open_requests = {cell: scarce["open_requests"]}
        world.router.distance_m, world.router.time_s = case["distance_m"], case["duration_s"]
        async with world.pricing(city(products=FARES["products"])) as pricing:
            await pricing.running.repricer.recompute()
            [quote] = (await pricing.quotes(products=[case["product"]])).quotes
    assert quote.fare.amount_minor == case["fare_minor"]
    assert quote.fare.currency_code == "USD"
    lines = {
        quote_pb2.FareLineKind.Name(line.kind).removeprefix("FARE_LINE_KIND_"): line.amount_minor for line in quote.receipt.lines
    }
    assert lines == case["lines"]
    assert (quote.receipt.multiplier_milli, quote.receipt.time_of_day_milli) == (
        case["multiplier_milli"],
        case["time_of_day_milli"],
    )
    assert (quote.distance_m, quote.duration_s) == (case["distance_m"], case["duration_s"])


async def test_each_surge_of_the_table_is_published(world: World) -> None:
    cells = cells_inside(len(SURGES))
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        for cell, case in zip(cells, SURGES, strict=True):
            world.peers.supply[cell] = case["supply"]
            world.peers.open_requests[cell] = case["open_requests"]
            for rider in range(case["recent_quotes"]):
                await pricing.quotes(centre_of(cell), PICKUP, rider=f"rider-{rider}")
        assert await pricing.running.repricer.recompute() == {TESTPORT: Outcome.PUBLISHED}
        surge = (await pricing.surge(*cells)).surge
        listed = await pricing.multipliers()
    found = dict(zip(surge.cells, zip(surge.multiplier_milli, surge.supply, surge.demand_milli, strict=True), strict=True))
    for cell, case in zip(cells, SURGES, strict=True):
        assert found[cell] == (case["multiplier_milli"], case["supply"], case["demand_milli"]), case["name"]
    expected = {cell: case["multiplier_milli"] for cell, case in zip(cells, SURGES, strict=True)}
    assert listed == {cell: multiplier for cell, multiplier in expected.items() if multiplier > 1000}
