"""Files that processes make for each other: each made once, and never seen half written."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

PART = ".part"


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Only one process at a time, and one thread of it, is inside for this file or folder, which need not be there yet.

    What a process left aside that was killed while it wrote is cleared away. Raises OSError where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in path.parent.iterdir():
            if left.name.startswith(path.stem) and left.name.endswith(PART):
                _clear(left)
        yield


def write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes aside, then renames: a reader sees the old file or all of the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=PART)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        aside.replace(path)
    except BaseException:
        _clear(aside)
        raise


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """The same for a folder. To be called inside `one_at_a_time`: between the old one's end and the new one there is none."""
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=path.stem, suffix=PART))
    try:
        fill(aside)
        if path.exists():
            _clear(path)
        aside.rename(path)
    except BaseException:
        _clear(aside)
        raise


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
