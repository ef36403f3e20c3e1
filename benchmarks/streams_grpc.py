"""Drivers who report one fix after another, each on a stream of its own: how many fixes a second, how much memory a stream?"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil

from benchmarks.discard_grpc import COUNT_METHOD, COUNTED
from benchmarks.figures import rate_between
from benchmarks.sending_grpc import SINGLE, Progress, Stream, all_of, bearer, close_all, open_channels, total
from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.units import E7
from hexhail.rpc import loop
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    import grpc

    from benchmarks.accounting import Tally
    from benchmarks.places import Drivers
    from hexhail.kernel.units import Ints

WINDOW: Final = 256
"""Fixes of one stream that may be unacknowledged: more than a server has under way, so that its own flow control decides; and
bounded, so that the end of a run does not take minutes."""
RAMP: Final = 0.25
"""This share of a run is not measured."""
MOST_PER_S: Final = 120_000
"""Messages are made before the clock starts, for so many a second; a stream that has sent them all falls silent, to our
disadvantage."""
_PLACES: Final = 16
"""Steps of each driver, walked round and round."""
_OPENED_AT_ONCE: Final = 100
WARM_STREAMS: Final = 20
"""Opened before the memory is looked at for the first time."""
_REST_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """What is to be sent.

    discards : whether the server at the address is the one that discards
    """

    address: str
    city_id: str
    token_key: bytes
    drivers: Drivers
    connections: int
    seconds: float
    discards: bool = False


@dataclass(frozen=True, slots=True)
class StreamRun:
    """What came of it.

    rate : fixes a second dealt with, while all streams were sending
    last_steps : int64[n], the step of each driver's last fix
    """

    tally: Tally
    rate: float
    accepted_rate: float
    last_steps: Ints


@dataclass(frozen=True, slots=True)
class MemoryRun:
    """What open streams cost the service."""

    streams: int
    before_bytes: int
    after_bytes: int
    tally: Tally

    @property
    def kb_per_stream(self) -> float:
        """Growth of its resident memory for each stream, kB (1,000 bytes)."""
        return (self.after_bytes - self.before_bytes) / self.streams / 1000


def run_streams(load: StreamLoad) -> StreamRun:
    """Sends as fast as flow control lets it, for a time."""
    return loop.run(_run_streams(load))


def run_idle_streams(load: StreamLoad, service_pid: int) -> MemoryRun:
    """Opens a stream for each driver, sends one fix on each, looks at the service's memory, and closes them."""
    return loop.run(_run_idle_streams(load, service_pid))


def _messages(drivers: Drivers, per_driver: int) -> list[list[bytes]]:
    steps = [drivers.at(step) for step in range(_PLACES)]
    lat, lng = (np.array([step[axis] for step in steps]).T / E7 for axis in (0, 1))
    began_ms = time.time_ns() // 1_000_000
    spacing_ms = 1000 * len(drivers) / MOST_PER_S
    fix = fix_pb2.Fix(accuracy_m=6.5, heading_deg=29.0, speed_mps=8.25, position=geo_pb2.LatLng())
    position = fix.position
    made = []
    for lats, lngs in zip(lat.tolist(), lng.tolist(), strict=True):
        mine = []
        for number in range(per_driver):
            fix.sequence, fix.device_time_ms = number + 1, began_ms + round(number * spacing_ms)
            position.lat, position.lng = lats[number % _PLACES], lngs[number % _PLACES]
            mine.append(pb.StreamFixesRequest(fix=fix).SerializeToString())
        made.append(mine)
    return made


async def _opened(load: StreamLoad, drivers: Drivers, channels: list[grpc.aio.Channel]) -> list[Stream]:
    """A stream for each driver, opened some at a time."""
    streams: list[Stream] = []
    window = 0 if load.discards else WINDOW
    driver_ids = drivers.ids
    for start in range(0, len(driver_ids), _OPENED_AT_ONCE):
        opening = []
        for row, driver_id in enumerate(driver_ids[start : start + _OPENED_AT_ONCE]):
            metadata = bearer(mint_token(load.token_key, Role.DRIVER, driver_id))
            opening.append(Stream(channels[row % len(channels)], SINGLE, metadata, window))
        await all_of([each.open(load.city_id) for each in opening])
        streams += opening
    return streams


async def _run_streams(load: StreamLoad) -> StreamRun:
    messages = _messages(load.drivers, math.ceil(MOST_PER_S * load.seconds / len(load.drivers)))
    gc.freeze()
    channels = open_channels(load.address, load.connections)
    try:
        streams = await _opened(load, load.drivers, channels)
        progress = Progress.of(streams)
        began_s = time.perf_counter()
        from_s, to_s = began_s + RAMP * load.seconds, began_s + load.seconds
        # one that discards does not mind to read the same again, and must never be short of messages
        supplies = [itertools.cycle(some) if load.discards else some for some in messages]
        work: list[Awaitable[None]] = [_send(each, some, to_s) for each, some in zip(streams, supplies, strict=True)]
        counts: list[tuple[float, int]] = []
        if load.discards:
            work.append(_count(channels[0], (from_s, to_s), counts))
        await all_of(work)
        await all_of([each.close() for each in streams])
        dealt_with, accepted = (counts, counts) if load.discards else (progress.dealt_with, progress.accepted)
    finally:
        await close_all(channels)
    last_steps = np.array([(each.tally.sent - 1) % _PLACES for each in streams], dtype=np.int64)
    until_s = math.inf if load.discards else to_s  # the discarding server is asked a moment after its time
    rate, accepted_rate = (rate_between(events, from_s, until_s) for events in (dealt_with, accepted))
    return StreamRun(total(streams), rate, accepted_rate, last_steps)


async def _send(stream: Stream, messages: Iterable[bytes], to_s: float) -> None:
    for message in messages:
        await stream.send(message, 1)
        if time.perf_counter() >= to_s:
            return


async def _count(channel: grpc.aio.Channel, times_s: Iterable[float], counts: list[tuple[float, int]]) -> None:
    """How many has the discarding server read at these times, by its own count and clock?"""
    ask: Any = channel.unary_unary(COUNT_METHOD)
    for at_s in times_s:
        await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
        reply: bytes = await ask(b"")
        counts.append(struct.unpack(COUNTED, reply))


async def _run_idle_streams(load: StreamLoad, service_pid: int) -> MemoryRun:
    messages = _messages(load.drivers, 1)
    few, many = load.drivers.part(0, WARM_STREAMS), load.drivers.part(WARM_STREAMS, len(load.drivers))
    channels = open_channels(load.address, load.connections)
    try:
        streams = await _opened(load, few, channels)
        await _report_once(streams, messages)
        before_bytes = await _resident_bytes(service_pid)
        opened = await _opened(load, many, channels)
        await _report_once(opened, messages[len(few) :])
        after_bytes = await _resident_bytes(service_pid)
        await all_of([each.close() for each in (*streams, *opened)])
    finally:
        await close_all(channels)
    return MemoryRun(len(opened), before_bytes, after_bytes, total((*streams, *opened)))


async def _report_once(streams: list[Stream], messages: list[list[bytes]]) -> None:
    await all_of([each.send(message, 1) for each, (message,) in zip(streams, messages, strict=False)])
    await all_of([each.settled() for each in streams])


async def _resident_bytes(pid: int) -> int:
    """Of a process and its children, when it has come to rest."""
    await asyncio.sleep(_REST_S)
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
