"""Where a run keeps its data: a temporary folder that goes with it, and what a killed run left behind is cleared away."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEMO, _SOCKETS = "hexhail-demo-", "hexhail-workers-"
_LOCK = "owner.lock"
_LONGEST_SOCKET_FOLDER = 80
"""A socket's whole path has 107 characters at most."""


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """A folder for this run alone; gone with the block. Folders whose owner is dead go as well."""
    with _temporary(_DEMO) as folder:
        yield folder


@contextmanager
def socket_dir() -> Iterator[Path]:
    """The same for the sockets of workers: its path is short enough, whatever that of the data folder."""
    with _temporary(_SOCKETS) as folder:
        yield folder


@contextmanager
def _temporary(prefix: str) -> Iterator[Path]:
    root = Path(tempfile.gettempdir())
    if len(str(root)) > _LONGEST_SOCKET_FOLDER:
        root = Path("/tmp")  # noqa: S108 - made by mkdtemp below, with a name of its own and for this user only
    _clear_left_behind(root, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left_behind(root: Path, prefix: str) -> None:
    for folder in root.glob(f"{prefix}*"):
        with suppress(OSError), (folder / _LOCK).open("r+") as lock:  # held: its owner lives; not ours: left alone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
