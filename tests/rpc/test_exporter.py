"""What a process has counted, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hexhail.kernel.counters import counted_by, counter
from hexhail.rpc.calls import CallCounters
from hexhail.rpc.exporter import Exporter, MetricsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Metric

WATCH = "/hexhail.api.location.v1.LocationService/WatchArea"


@dataclass
class Cars:
    seen: int = counter("Cars seen.")
    painted: Counter[str] = field(default_factory=Counter, metadata=counted_by("colour", ("red", "green"), "Cars painted."))


def read(address: str) -> Mapping[str, Metric]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        return {family.name: family for family in text_string_to_metric_families(page.read().decode())}


def values(family: Metric) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}


async def test_the_counters_of_cities_are_read_when_the_page_is() -> None:
    cars = {"gridport": Cars(), "manhattan": Cars()}
    exporter = Exporter()
    exporter.show("traffic", cars)
    with exporter.serving("127.0.0.1:0") as address:
        cars["gridport"].seen += 2
        cars["manhattan"].painted["red"] += 5
        page = await asyncio.to_thread(read, address)
        seen, painted = page["hexhail_traffic_seen"], page["hexhail_traffic_painted"]
        assert (seen.type, seen.documentation) == ("counter", "Cars seen.")
        assert [sample.name for sample in seen.samples] == ["hexhail_traffic_seen_total"] * 2
        assert values(seen) == {(("city", "gridport"),): 2.0, (("city", "manhattan"),): 0.0}
        assert values(painted) == {
            (("city", city), ("colour", colour)): 5.0 if (city, colour) == ("manhattan", "red") else 0.0
            for city in cars
            for colour in ("red", "green")
        }
        cars["gridport"].seen += 1
        assert values((await asyncio.to_thread(read, address))["hexhail_traffic_seen"])[(("city", "gridport"),)] == 3.0


async def test_calls_are_shown_by_service_method_and_code() -> None:
    calls = CallCounters()
    exporter = Exporter()
    exporter.show_calls(calls)
    calls.ended[WATCH, "OK"] += 2
    calls.streams_open[WATCH] += 1
    calls.under_way[WATCH.replace("WatchArea", "CountSupply")] += 3
    where = (("method", "WatchArea"), ("service", "hexhail.api.location.v1.LocationService"))
    with exporter.serving("127.0.0.1:0") as address:
        page = await asyncio.to_thread(read, address)
    assert values(page["hexhail_rpc_calls"]) == {(("code", "OK"), *where): 2.0}
    assert (page["hexhail_rpc_streams_open"].type, values(page["hexhail_rpc_streams_open"])) == ("gauge", {where: 1.0})
    assert list(values(page["hexhail_rpc_calls_under_way"]).values()) == [3.0]


async def test_the_process_itself_is_shown_too() -> None:
    exporter = Exporter()
    exporter.show_process()
    with exporter.serving("127.0.0.1:0") as address:
        page = await asyncio.to_thread(read, address)
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_info", "python_gc_collections"} <= set(page)


def test_a_page_ends_with_its_block() -> None:
    with Exporter().serving("127.0.0.1:0") as address:
        read(address)
    with pytest.raises(OSError, match="refused"):
        read(address)


@pytest.mark.parametrize("address", ["", "9100", "unix:/tmp/x.sock", "127.0.0.1:99999", "256.0.0.1:9100"])
def test_an_address_that_is_none_is_one_clear_line(address: str) -> None:
    with pytest.raises(MetricsError, match="HEXHAIL_METRICS_ADDRESS") as caught, Exporter().serving(address):
        pass
    assert "\n" not in str(caught.value)


def test_a_taken_address_is_one_clear_line() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsError, match=f"metrics cannot be served at {address} .*in use"), Exporter().serving(address):
            pass
