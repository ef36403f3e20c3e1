"""The line to an engine: requests go out together, each within the deadline of its question, and what may pass is tried again.

A thread of its own with an event loop: a deadline there ends a request wherever it hangs, in the middle of a header too, which
the timeouts of a blocking client, being those of single reads, would not; and it holds neither the service's loop nor the threads
that wait for answers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import httpx
import tenacity

from routing.engine_replies import EngineFault, Fault, Reply

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from routing.engine_params import EngineParams
    from routing.engine_replies import Request

MAX_REPLY_BYTES = 64 * 1024 * 1024
_KEEP_ALIVE_S = 30.0
_LONGEST_WAIT_S = 1.0

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs addresses, and ours hold coordinates


class Tally(Protocol):
    """Where a line counts what it does. Only its own thread writes there."""

    requests: int
    """Sent, repeated ones included."""
    retries: int
    """Of these, repeated ones."""


class Line:
    """To one engine. Opened by the first question; `close` ends whatever is under way. Safe to use from several threads."""

    def __init__(self, params: EngineParams, tally: Tally) -> None:
        self._params = params
        self._address = httpx.URL(params.url)
        self._path = self._address.raw_path.decode().rstrip("/")
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._tally = tally

    def use(self, deadline_s: float) -> Use:
        """For one question, which has so many seconds from now."""
        return Use(self, time.monotonic() + deadline_s, self._params.requests_at_once)

    def submit(self, work: Coroutine[None, None, list[Reply]]) -> concurrent.futures.Future[list[Reply]]:
        """Has the line's loop do it. Raises EngineFault where the line is closed."""
        with self._lock:
            if self._closed:
                work.close()
                raise EngineFault(Fault.NO_CONNECTION, "the line is closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop or self._open())

    def close(self) -> None:
        """Ends what is under way, and the thread. A second time does nothing."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    async def fetch(self, request: Request, deadline_at: float) -> Reply:
        """The reply to one request; what may pass is tried again while there is time. Runs in the line's loop."""
        params = self._params

        def wait_s(tried: tenacity.RetryCallState) -> float:
            fault = tried.outcome.exception() if tried.outcome else None
            wanted_s = fault.retry_after_s if isinstance(fault, EngineFault) else 0.0
            growing_s: float = params.retry_wait_s * 2 ** (tried.attempt_number - 1)
            return max(wanted_s, min(growing_s, _LONGEST_WAIT_S))

        def is_over(tried: tenacity.RetryCallState) -> bool:
            return tried.attempt_number >= params.attempts or time.monotonic() + tried.upcoming_sleep >= deadline_at

        def count(_: tenacity.RetryCallState) -> None:
            self._tally.retries += 1

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, EngineFault) and error.fault.may_pass),
            stop=is_over,
            wait=wait_s,
            before_sleep=count,
            reraise=True,
        )
        reply: Reply = await retrying(self._once, request)
        return reply

    async def _once(self, request: Request) -> Reply:
        assert self._client is not None  # noqa: S101
        self._tally.requests += 1
        # the target goes beside the address, since httpx takes an address of some kilobytes apart letter by letter
        sent = self._client.build_request(
            request.method,
            self._address,
            content=request.body or None,
            headers={"content-type": "application/json"} if request.body else None,
            extensions={"target": (self._path + request.target).encode()},
        )
        body = bytearray()
        try:
            response = await self._client.send(sent, stream=True)
            try:
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise EngineFault(Fault.UNREADABLE, f"a reply of more than {MAX_REPLY_BYTES} bytes")
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise EngineFault(Fault.NO_CONNECTION, type(error).__name__) from error
        except httpx.HTTPError as error:
            raise EngineFault(Fault.UNREADABLE, type(error).__name__) from error
        _check_status(response)
        return Reply(response.status_code, bytes(body))

    def _open(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        connections = self._params.questions_at_once * self._params.requests_at_once
        self._client = httpx.AsyncClient(
            timeout=None,  # noqa: S113  # the deadline of the question ends it
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEEP_ALIVE_S
            ),
            headers={"accept": "application/json", "accept-encoding": "gzip", "user-agent": "hexhail"},
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="routing-engine", daemon=True)
        self._thread.start()
        return self._loop

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()


@dataclass(slots=True)
class Use:
    """One question's use of a line: what it sends together, and its deadline.

    replies : so many came
    """

    line: Line
    deadline_at: float
    requests_at_once: int
    replies: int = 0
    _under_way: concurrent.futures.Future[list[Reply]] | None = None
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def left_s(self) -> float:
        """How long until the deadline? 0 after it."""
        return max(self.deadline_at - time.monotonic(), 0.0)

    def send(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies, in the order of the requests; blocks. Raises the first EngineFault, and gives the others up."""
        with self._lock:
            if self._ended or not self.left_s():
                raise EngineFault(Fault.LATE)
            self._under_way = self.line.submit(self._all(requests))
        try:
            replies = self._under_way.result()
        except (TimeoutError, concurrent.futures.CancelledError):
            raise EngineFault(Fault.LATE) from None
        self.replies += len(replies)
        return replies

    def end(self) -> None:
        """Nobody waits any more: gives up what is under way, so that whoever sends goes on at once."""
        with self._lock:
            self._ended = True
            if self._under_way is not None:
                self._under_way.cancel()

    async def _all(self, requests: Sequence[Request]) -> list[Reply]:
        turns = asyncio.Semaphore(self.requests_at_once)

        async def one(request: Request) -> Reply:
            async with turns:
                return await self.line.fetch(request, self.deadline_at)

        try:
            async with asyncio.timeout(self.left_s()), asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(request)) for request in requests]
        except* EngineFault as faults:
            raise _first(faults) from None
        return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[EngineFault]) -> EngineFault:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if 300 <= status < 400:
        raise EngineFault(Fault.REDIRECTED, f"HTTP {status}")
    if status in {429, 502, 503, 504}:
        raise EngineFault(Fault.BUSY, f"HTTP {status}", _retry_after_s(response.headers.get("retry-after", "")))
    if status >= 500:
        raise EngineFault(Fault.FAILED, f"HTTP {status}")


def _retry_after_s(text: str) -> float:
    """Seconds only; a date, the header's other form, says nothing to us (RFC 9110, 10.2.3)."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0
