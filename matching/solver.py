"""Has windows assigned without holding up the event loop: the small ones here, the large ones by a process of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from matching.assignment import Assignment, assign
from matching.assignment_process import packed

if TYPE_CHECKING:
    from hexhail.kernel.units import Ints
    from matching.assignment import Pairs

log = structlog.get_logger(__name__)

SMALL_PAIRS: Final = 1_000
"""So many take some milliseconds, which is what the way to another process takes."""
LIMIT_S: Final = 20.0
"""A window that takes longer is given up, with its process."""


class SolverError(Exception):
    """The process that assigns has ended, or did not answer in time."""


class Solver:
    """Assigns windows, one after the other. Its process comes with the first large one, and again after it has fallen."""

    def __init__(self, small_pairs: int = SMALL_PAIRS, limit_s: float = LIMIT_S) -> None:
        self._small_pairs = small_pairs
        self._limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process else None

    async def assign(self, pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> Assignment:
        """What `assignment.assign` gives. Raises SolverError; the next window finds a new process."""
        if len(pairs) <= self._small_pairs:
            return assign(pairs, waiting_milli, n_drivers)
        async with self._turn:
            process = await self._running()
            try:
                async with asyncio.timeout(self._limit_s):
                    return await _asked(process, pairs, waiting_milli, n_drivers)
            except (OSError, EOFError, TimeoutError) as error:
                await self._stop()
                raise SolverError(f"the process that assigns did not answer: {error!r}") from error
            except asyncio.CancelledError:
                await self._stop()  # half an answer may be in the pipe
                raise

    async def aclose(self) -> None:
        """Ends the process."""
        await self._stop()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            command = (sys.executable, "-m", "matching.assignment_process")
            self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            log.info("a process for assignments", pid=self._process.pid)
        return self._process

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _asked(process: asyncio.subprocess.Process, pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> Assignment:
    if process.stdin is None or process.stdout is None:
        raise EOFError("it has no pipes")
    process.stdin.write(packed(pairs, waiting_milli, n_drivers))
    await process.stdin.drain()
    answer = np.frombuffer(await process.stdout.readexactly(8 * (1 + len(waiting_milli))), dtype="<i8")
    return Assignment(answer[1:].astype(np.int64), int(answer[0]))
