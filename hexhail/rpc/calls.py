"""How do calls end, and how many are there? Counted around every call, for whoever exports it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class CallCounters:
    """Of one server; a method is its path, as `/hexhail.api.location.v1.LocationService/StreamFixes`.

    ended : (method, status code) -> how many calls and streams
    under_way : method -> how many calls with one answer are being served
    streams_open : method -> how many streams are being served
    """

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    streams_open: Counter[str] = field(default_factory=Counter)
