"""A fleet's gateway that reports in columns, on a few streams: as fast as it may, or at a stated pace."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.figures import rate_between
from benchmarks.sending_grpc import FLEET, Progress, Stream, all_of, bearer, close_all, open_channels, total
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.rpc import loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.accounting import Tally
    from benchmarks.places import Drivers
    from hexhail.kernel.units import Ints

WINDOW: Final = 3
"""Batches of one stream that may be unacknowledged."""
DISTINCT_BATCHES: Final = WINDOW + 1
"""A driver is in so many batches of its stream once at most, so that those under way at one time never meet in it."""
RAMP: Final = 0.25
"""This share of a run is not measured."""
MOST_PER_S: Final = 350_000
"""Batches are made before the clock starts, for so many fixes a second; a run that has sent them all ends early."""


@dataclass(frozen=True, slots=True)
class ColumnLoad:
    """What is to be sent.

    streams : each with a connection of its own, and an equal share of the drivers
    rows : fixes of one batch
    seconds : how long at most after everyone was introduced; 0 sends nobody twice
    first_step : where everyone is at first
    per_s : fixes a second, evenly in time; 0 is as fast as it may
    """

    address: str
    city_id: str
    token: str
    drivers: Drivers
    streams: int
    rows: int
    seconds: float
    first_step: int = 0
    per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ColumnRun:
    """What came of it.

    rate : fixes a second accepted, once everyone was introduced and the streams were at full speed
    last_steps : int64[n], the step of each driver's last fix
    began_s, ended_s : of sending, by the machine's monotonic clock
    """

    tally: Tally
    rate: float
    last_steps: Ints
    began_s: float
    ended_s: float


@dataclass(slots=True)
class _Lane:
    """One stream's share: its rows of all the drivers, in blocks of which each is a batch, and what was sent of them."""

    blocks: list[slice]
    introductions: list[bytes]
    batches: list[bytes]
    sent: int = 0


def run_columns(load: ColumnLoad) -> ColumnRun:
    """Introduces everyone, then sends for a time."""
    return run_flow(load, under_way=lambda: None, stopped=lambda: False)


def run_flow(load: ColumnLoad, *, under_way: Callable[[], None], stopped: Callable[[], bool]) -> ColumnRun:
    """The same; `under_way` is called when everyone was introduced, and once `stopped` is true nothing more is sent."""
    lanes = _lanes(load)
    gc.freeze()
    return loop.run(_run(load, lanes, under_way, stopped))


def _lanes(load: ColumnLoad) -> list[_Lane]:
    bounds = np.linspace(0, len(load.drivers), load.streams + 1).astype(int).tolist()
    most = math.ceil(load.seconds / _spacing_s(load))
    ids, at = load.drivers.ids, functools.cache(load.drivers.at)
    began_ms, spacing_ms = time.time_ns() // 1_000_000, 1000 * _spacing_s(load)
    lanes = []
    for start, end in itertools.pairwise(bounds):
        blocks = [slice(first, min(first + load.rows, end)) for first in range(start, end, load.rows)]
        introductions = [_batch(at(load.first_step), 1, began_ms, block, start, ids[block]) for block in blocks]
        batches = []
        for number in range(most):
            turn, block = divmod(number, len(blocks))
            at_ms = began_ms + round(number * spacing_ms)
            batches.append(_batch(at(load.first_step + turn + 1), turn + 2, at_ms, blocks[block], start))
        lanes.append(_Lane(blocks, introductions, batches))
    return lanes


def _spacing_s(load: ColumnLoad) -> float:
    """Between two batches of a stream."""
    return load.rows * load.streams / (load.per_s or MOST_PER_S)


def _batch(
    places: tuple[Ints, Ints], sequence: int, at_ms: int, block: slice, table_start: int, new_ids: Sequence[str] = ()
) -> bytes:
    lat_e7, lng_e7 = (column[block] for column in places)
    count = len(lat_e7)
    columns = fix_pb2.FixColumns(
        new_driver_ids=new_ids,
        driver_index=range(block.start - table_start, block.start - table_start + count),
        sequence=[sequence] * count,
        device_time_ms=[at_ms] * count,
        lat_e7=lat_e7.tolist(),
        lng_e7=lng_e7.tolist(),
        heading_cdeg=[2_900] * count,
        speed_mmps=[8_250] * count,
        accuracy_mm=[6_500] * count,
    )
    return pb.StreamFleetFixesRequest(columns=columns).SerializeToString()


async def _run(load: ColumnLoad, lanes: list[_Lane], under_way: Callable[[], None], stopped: Callable[[], bool]) -> ColumnRun:
    channels = open_channels(load.address, load.streams)
    try:
        streams = [Stream(channel, FLEET, bearer(load.token), WINDOW) for channel in channels]
        await all_of([each.open(load.city_id) for each in streams])
        await all_of([_introduce(stream, lane) for stream, lane in zip(streams, lanes, strict=True)])
        progress = Progress.of(streams)
        under_way()
        began_s = time.perf_counter()
        share_s = _spacing_s(load) / load.streams
        await all_of(
            [
                _send(load, stream, lane, began_s, began_s + row * share_s, stopped)
                for row, (stream, lane) in enumerate(zip(streams, lanes, strict=True))
            ]
        )
        ended_s = time.perf_counter()
        await all_of([each.close() for each in streams])
    finally:
        await close_all(channels)
    rate = rate_between(progress.accepted, began_s + RAMP * (ended_s - began_s), ended_s)
    return ColumnRun(total(streams), rate, _last_steps(load, lanes), began_s, ended_s)


async def _introduce(stream: Stream, lane: _Lane) -> None:
    for block, batch in zip(lane.blocks, lane.introductions, strict=True):
        await stream.send(batch, block.stop - block.start)
    await stream.settled()


async def _send(
    load: ColumnLoad, stream: Stream, lane: _Lane, began_s: float, first_s: float, stopped: Callable[[], bool]
) -> None:
    spacing_s = _spacing_s(load)
    for number, batch in enumerate(lane.batches):
        if load.per_s:
            await asyncio.sleep(max(0.0, first_s + number * spacing_s - time.perf_counter()))
        if time.perf_counter() >= began_s + load.seconds or stopped():
            return
        block = lane.blocks[number % len(lane.blocks)]
        await stream.send(batch, block.stop - block.start)
        lane.sent += 1


def _last_steps(load: ColumnLoad, lanes: list[_Lane]) -> Ints:
    steps = np.full(len(load.drivers), load.first_step, dtype=np.int64)
    for lane in lanes:
        for number in range(lane.sent):
            turn, block = divmod(number, len(lane.blocks))
            steps[lane.blocks[block]] = load.first_step + turn + 1
    return steps
