"""How is a server process started, awaited and stopped? A child of this process that never outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hexhail.embedded.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_POLL_S: Final = 0.01
_LONGEST_POLL_S: Final = 0.2
_KILLED_S: Final = 5.0
_TAIL_LINES: Final = 6
_TAIL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run, and how.

    `death_signal` is sent to it when this process ends; `log` receives all that it prints; `preparation` are further
    options of launch.py; `held_fds` stay open in it and its descendants.
    """

    name: str
    argv: tuple[str, ...]
    death_signal: signal.Signals
    log: Path
    preparation: tuple[str, ...] = ()
    held_fds: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StopStep:
    """A signal, and how long to wait for the end before the next step."""

    signal: signal.Signals
    patience_s: float


class Child:
    """One running server process."""

    def __init__(self, launch: Launch) -> None:
        """Starts it. Raises StoreError where that cannot work.

        Only the main thread may: the parent-death signal is sent when the starting thread ends, not the process.
        """
        if not sys.platform.startswith("linux"):
            raise StoreError(f"an embedded {launch.name} needs Linux: give the address of a running one instead")
        if threading.current_thread() is not threading.main_thread():
            raise StoreError(f"an embedded {launch.name} must be started from the main thread")
        self._launch = launch
        options = (str(os.getpid()), str(int(launch.death_signal)), *launch.preparation)
        try:
            with launch.log.open("ab") as log:
                self._log_start = log.tell()
                self._popen = subprocess.Popen(  # noqa: S603  (our own launcher, with arguments made here)
                    (sys.executable, "-I", "-S", str(_LAUNCHER), *options, "--", *launch.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=launch.environment or None,
                    pass_fds=launch.held_fds,
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            raise StoreError(f"{launch.name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group and session."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._popen.poll()

    def last_words(self) -> str:
        """The last lines it printed, on one line."""
        with self._launch.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-_TAIL_LINES:]) or "(it printed nothing)"

    async def ready(self, attempt: Callable[[], Awaitable[str | None]], deadline_s: float) -> None:
        """Returns once `attempt` says that it serves (None, rather than why not).

        Raises StoreError, with its last words, when it ends first or does not serve within `deadline_s` seconds.
        """
        end, pause_s = time.monotonic() + deadline_s, _POLL_S
        while (why_not := await attempt()) is not None:
            self._must_run()
            if time.monotonic() > end:
                raise StoreError(f"{self._launch.name} is not ready after {deadline_s:g} s ({why_not}): {self.last_words()}")
            await asyncio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)
        self._must_run()

    async def finished(self, deadline_s: float) -> None:
        """Returns once it has ended well.

        Raises StoreError, with its last words, when it fails or takes longer than `deadline_s` seconds.
        """
        if not await self._ended(deadline_s):
            raise StoreError(f"{self._launch.name} has not finished within {deadline_s:g} s: {self.last_words()}")
        if self.exit_code() != 0:
            raise StoreError(f"{self._launch.name} failed with exit code {self.exit_code()}: {self.last_words()}")

    async def stop(self, steps: Sequence[StopStep]) -> None:
        """Ends it, by each step in turn and at last by SIGKILL. A cancellation waits until it has ended."""
        stopping = asyncio.ensure_future(self._stop(steps))
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _must_run(self) -> None:
        if self.exit_code() is not None:
            raise StoreError(f"{self._launch.name} ended with exit code {self.exit_code()} while starting: {self.last_words()}")

    async def _stop(self, steps: Sequence[StopStep]) -> None:
        try:
            for step in steps:
                if self.exit_code() is not None:
                    return
                self._popen.send_signal(step.signal)
                await self._ended(step.patience_s)
        finally:
            if self.exit_code() is None:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait(_KILLED_S)

    async def _ended(self, patience_s: float) -> bool:
        end = time.monotonic() + patience_s
        while self.exit_code() is None and time.monotonic() < end:  # noqa: ASYNC110  (no event tells of a process's end)
            await asyncio.sleep(_POLL_S)
        return self.exit_code() is not None
