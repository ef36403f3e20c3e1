"""Data folders with short paths, and a look at what a run has left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits until a condition holds, 15 s at most."""

    def wait(condition: Callable[[], object], within_s: float = 15.0) -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"still not so after {within_s:g} s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def living() -> Callable[[Path], list[str]]:
    """The processes that name a folder or live in it, this one aside."""

    def processes(folder: Path) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                command, cwd = " ".join(process.cmdline()), process.cwd()
            except psutil.Error:
                continue
            if process.pid != os.getpid() and (str(folder) in command or cwd.startswith(str(folder))):
                found.append(f"{process.pid} {command}")
        return found

    return processes


@pytest.fixture
def data_dir(until: Callable[..., None], living: Callable[[Path], list[str]]) -> Iterator[Path]:
    """A data folder to be, in a short folder that other users may enter."""
    parent = Path(tempfile.mkdtemp(prefix="hx", dir="/tmp"))
    parent.chmod(0o711)
    yield parent / "data"
    until(lambda: not living(parent))
    shutil.rmtree(parent)
