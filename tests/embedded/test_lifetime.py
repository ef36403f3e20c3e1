"""However the parent ends, its stores end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hexhail.embedded import embedded_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARENT = Path(__file__).with_name("parent.py")
ROOT = Path(__file__).parents[2]


@contextmanager
def started_parent(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is about to start stores."""
    command = [sys.executable, str(PARENT), str(data_dir)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as parent:
        try:
            yield parent
        finally:
            parent.kill()


@contextmanager
def parent_of_stores(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose stores serve."""
    with started_parent(data_dir) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        if not line.startswith("READY"):
            _, errors = parent.communicate(timeout=10)
            pytest.fail(errors)
        yield parent


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_no_server_outlives_a_parent_that_is_killed(
    data_dir: Path, living: Callable[[Path], list[str]], until: Callable[..., None], end: signal.Signals
) -> None:
    with parent_of_stores(data_dir) as parent:
        assert len(living(data_dir)) > 2
        parent.send_signal(end)
        parent.wait(10)

        until(lambda: not living(data_dir), within_s=5.0)


async def test_no_program_outlives_a_parent_that_is_killed_while_starting(
    data_dir: Path, living: Callable[[Path], list[str]], until: Callable[..., None]
) -> None:
    with started_parent(data_dir) as parent:
        until(lambda: any("initdb -D" in command for command in living(data_dir)))
        parent.kill()
        parent.wait(10)

        until(lambda: not living(data_dir), within_s=5.0)

    async with embedded_stores(data_dir, durable=False):
        pass


async def test_a_new_start_right_after_the_kill_waits_for_the_old_servers(data_dir: Path) -> None:
    with parent_of_stores(data_dir) as parent:
        parent.kill()
        parent.wait(10)

        async with embedded_stores(data_dir, durable=False):
            assert "database system was not properly shut down" in (data_dir / "postgres.log").read_text()


async def test_a_socket_folder_left_by_a_killed_parent_is_removed_by_the_next(data_dir: Path) -> None:
    long_dir = data_dir / ("x" * 120)
    with parent_of_stores(long_dir) as parent:
        parent.kill()
        parent.wait(10)
    left = [Path((long_dir / f"{name}.children.lock").read_text()) for name in ("valkey", "postgres")]
    assert all(folder.is_dir() for folder in left)

    async with embedded_stores(long_dir, durable=False):
        assert not any(folder.exists() for folder in left)


async def test_an_interrupt_at_the_keyboard_lets_the_parent_stop_its_stores_in_order(
    data_dir: Path, living: Callable[[Path], list[str]]
) -> None:
    with parent_of_stores(data_dir) as parent:
        os.killpg(parent.pid, signal.SIGINT)
        parent.wait(20)

        assert living(data_dir) == []
        log = (data_dir / "postgres.log").read_text()
        assert "received fast shutdown request" in log
        assert log.rstrip().endswith("database system is shut down")
        assert "bye bye" in (data_dir / "valkey.log").read_text()
