"""One stream of fixes, seen from its sender: what was sent on it, and what became of that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import grpc

from benchmarks.accounting import Tally
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    Metadata = tuple[tuple[str, str], ...]

SERVICE: Final = "/hexhail.api.location.v1.LocationService/"

CHANNEL_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share one connection
    ("grpc.enable_retries", 0),
)
ANSWER_S: Final = 60.0


class Answer(Protocol):
    """What both kinds of streams of fixes answer with."""

    session_opened: pb.SessionOpened
    ack: pb.FixAck

    def HasField(self, field_name: Any) -> bool:  # noqa: N802 - the generated messages' name
        """Which of the two is it?"""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two methods that take fixes in."""

    method: str
    opening: type[pb.StreamFixesRequest | pb.StreamFleetFixesRequest]
    answer: type[pb.StreamFixesResponse | pb.StreamFleetFixesResponse]


SINGLE: Final = Kind(SERVICE + "StreamFixes", pb.StreamFixesRequest, pb.StreamFixesResponse)
FLEET: Final = Kind(SERVICE + "StreamFleetFixes", pb.StreamFleetFixesRequest, pb.StreamFleetFixesResponse)


class Progress:
    """What some streams have had acknowledged: (time, fixes in all dealt with by then), and of those the accepted."""

    def __init__(self) -> None:
        """Begins now."""
        now_s = time.perf_counter()
        self.dealt_with = [(now_s, 0)]
        self.accepted = [(now_s, 0)]

    @classmethod
    def of(cls, streams: Sequence[Stream]) -> Self:
        """What these streams will have acknowledged from now on."""
        progress = cls()
        for stream in streams:
            stream.progress = progress
        return progress

    def add(self, accepted: int, dropped: int) -> None:
        """An acknowledgement has come."""
        now_s = time.perf_counter()
        self.dealt_with.append((now_s, self.dealt_with[-1][1] + accepted + dropped))
        self.accepted.append((now_s, self.accepted[-1][1] + accepted))


class Stream:
    """One stream. Messages go out as they are; acknowledgements are read as they come."""

    def __init__(self, channel: grpc.aio.Channel, kind: Kind, metadata: Metadata, window: int) -> None:
        """`window` : so many messages may be unacknowledged; 0 for one whose server acknowledges nothing until the end."""
        call: Any = channel.stream_stream(kind.method, request_serializer=None, response_deserializer=kind.answer.FromString)
        self._call = call(metadata=metadata)
        self._kind = kind
        self.progress: Progress | None = None
        self._room = asyncio.Semaphore(window) if window else None
        self._told = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self.tally = Tally()

    async def open(self, city_id: str) -> None:
        """Opens the session."""
        async with asyncio.timeout(ANSWER_S):
            opening = self._kind.opening(open_session=pb.OpenSession(city_id=city_id))
            await self._call.write(opening.SerializeToString())
            answer: Answer = await self._call.read()
        if not answer.HasField("session_opened"):
            raise ValueError(f"{self._kind.method} does not begin with session_opened")
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._ended)

    async def send(self, message: bytes, fixes: int) -> None:
        """Sends a message of so many fixes, once flow control and the window let it."""
        if self._room is not None:
            await self._room.acquire()
            self._must_go_on()
        await self._call.write(message)
        self.tally.messages += 1
        self.tally.sent += fixes

    async def settled(self) -> None:
        """Returns once all that was sent is acknowledged."""
        async with asyncio.timeout(ANSWER_S):
            while self.tally.up_to < self.tally.messages:
                self._told.clear()
                await self._told.wait()
                self._must_go_on()

    async def close(self) -> None:
        """Closes our side; returns once all is acknowledged and the server has ended the stream with OK."""
        async with asyncio.timeout(ANSWER_S):
            await self._call.done_writing()
            if self._reader is not None:
                await self._reader
            code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            raise ValueError(f"{self._kind.method} ended with {code.name}: {await self._call.details()}")

    def _must_go_on(self) -> None:
        """Raises what the stream ended with, where it has ended."""
        if self._reader is not None and self._reader.done():
            self._reader.result()
            raise ValueError(f"{self._kind.method} has ended early")

    def _ended(self, _: object) -> None:
        self._told.set()
        if self._room is not None:
            self._room.release()  # for whoever waits to send, and is then told

    async def _read(self) -> None:
        tally, call = self.tally, self._call
        while (answer := await call.read()) is not grpc.aio.EOF:
            ack = answer.ack
            drops = {fix_pb2.FixDropReason.Name(drop.reason).removeprefix("FIX_DROP_REASON_"): drop.count for drop in ack.drops}
            tally.accepted += ack.accepted
            tally.drops.update(drops)
            if self.progress is not None:
                self.progress.add(ack.accepted, sum(drops.values()))
            if self._room is not None:
                for _ in range(ack.up_to_sequence - tally.up_to):
                    self._room.release()
            tally.up_to = ack.up_to_sequence
            self._told.set()


def open_channels(address: str, count: int) -> list[grpc.aio.Channel]:
    """Channels, each with a connection of its own."""
    return [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for _ in range(count)]


def bearer(token: str) -> Metadata:
    """The metadata of a caller."""
    return (("authorization", f"Bearer {token}"),)


async def all_of(work: Sequence[Awaitable[None]]) -> None:
    """Returns when all have ended well; where one fails, the others are cancelled, and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def close_all(channels: Sequence[grpc.aio.Channel]) -> None:
    """Closes the connections."""
    await asyncio.gather(*(channel.close() for channel in channels))


def total(streams: Sequence[Stream]) -> Tally:
    """All streams' counts together."""
    tally = Tally()
    for stream in streams:
        tally.add(stream.tally)
    return tally
