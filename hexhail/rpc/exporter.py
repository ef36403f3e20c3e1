"""What has this process done so far, as a page that Prometheus can read? Counters are read when asked, and cost nothing before.

Source: the names follow the conventions of the Prometheus documentation (unit and `_total` at the end).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hexhail.kernel.addresses import host_and_port, with_port
from hexhail.kernel.counters import readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from hexhail.rpc.calls import CallCounters

log = structlog.get_logger(__name__)

_PREFIX = "hexhail"


class MetricsError(Exception):
    """The metrics cannot be served; one line says why."""


class Exporter:
    """The counters that a process shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def show_process(self) -> None:
        """Memory, processor time, open files and garbage collections of this process, by the library's own names."""
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self.registry)

    def show(self, service: str, by_city: Mapping[str, object]) -> None:
        """A dataclass of counters for each city, as `hexhail_<service>_<field>_total{city=...}`."""
        self.registry.register(_CityCounters(service, by_city))

    def show_calls(self, calls: CallCounters) -> None:
        """What a server counts of its calls, as `hexhail_rpc_...{service=..., method=...}`."""
        self.registry.register(_Calls(calls))

    @contextmanager
    def serving(self, address: str) -> Iterator[str]:
        """The page at `http://ADDRESS/metrics` for the time of the block; gives the address, with the port that port 0 found.

        Raises MetricsError where it cannot be listened on.
        """
        try:
            host, port = host_and_port(address)
            server, thread = start_http_server(port, host, self.registry)
        except (OSError, ValueError) as error:
            raise MetricsError(
                f"metrics cannot be served at {address} ({error}): free it, or set HEXHAIL_METRICS_ADDRESS"
            ) from None
        listening = with_port(address, server.server_port)
        log.info("showing metrics", address=listening)
        try:
            yield listening
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _CityCounters(Collector):
    def __init__(self, service: str, by_city: Mapping[str, object]) -> None:
        self._service = service
        self._by_city = by_city

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily] = {}
        for city_id, counters in self._by_city.items():
            for reading in readings(counters):
                name = f"{_PREFIX}_{self._service}_{reading.name}"
                labels = ("city", reading.label) if reading.label else ("city",)
                family = families.setdefault(name, CounterMetricFamily(name, reading.help_text, labels=labels))
                for kind, number in reading.values.items():
                    family.add_metric((city_id, kind) if reading.label else (city_id,), number)
        return families.values()


class _Calls(Collector):
    def __init__(self, calls: CallCounters) -> None:
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        where = ("service", "method")
        ended = CounterMetricFamily(f"{_PREFIX}_rpc_calls", "Calls and streams ended, by status code.", labels=(*where, "code"))
        for (method, code), number in dict(self._calls.ended).items():
            ended.add_metric((*_parts(method), code), number)
        yield ended
        for name, help_text, counted in (
            ("streams_open", "Streams open.", self._calls.streams_open),
            ("calls_under_way", "Calls under way.", self._calls.under_way),
        ):
            gauge = GaugeMetricFamily(f"{_PREFIX}_rpc_{name}", help_text, labels=where)
            for method, number in dict(counted).items():
                gauge.add_metric(_parts(method), number)
            yield gauge


def _parts(method: str) -> tuple[str, str]:
    _, service, name = method.split("/")
    return service, name
