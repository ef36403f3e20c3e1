"""Whose is a store's data folder, and where is its socket? One process at a time holds it, by a lock that ends with it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hexhail.embedded.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# A socket's address has 108 bytes, the closing zero included. The longest name in the folder is PostgreSQL's.
_SOCKET_PATH_BYTES: Final = 107
_LONGEST_SOCKET_NAME: Final = ".s.PGSQL.5432"
# Characters that mean the same in a path, a URL, a DSN and a PostgreSQL list.
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._/-]+")
_PREFIX: Final = "hexhail-"
_STALE_CHILD_S: Final = 15.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """A store's place on the disk, held by this process alone.

    `child_lock_fd` is to be kept open by the store's processes: as long as one of them lives, no other may use the folder.
    """

    data_dir: Path
    path: Path
    socket_dir: Path
    log: Path
    child_lock_fd: int


@asynccontextmanager
async def store_folder(data_dir: Path, name: str) -> AsyncIterator[StoreFolder]:
    """Holds `<data_dir>/<name>` while the context lasts; the folder itself is left for the store to make.

    Raises StoreError when another process holds it, or when it cannot be used.
    """
    data_dir = _absolute(data_dir)
    opened: list[int] = []
    temporary: Path | None = None
    try:
        with usable(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            holder_fd = _opened(data_dir / f"{name}.lock", opened)
            _hold(holder_fd, data_dir)
            child_fd = _opened(data_dir / f"{name}.children.lock", opened)
            await _wait_for_stale_children(child_fd, data_dir)
            _remove_leftover(_read(child_fd))
            path = data_dir / name
            temporary = None if fits_a_socket(path) else _short_private_folder()
            _write(child_fd, str(temporary or ""))
            log = _fresh_log(data_dir / f"{name}.log")
        yield StoreFolder(data_dir, path, temporary or path, log, child_fd)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            _write(child_fd, "")
        for fd in reversed(opened):
            os.close(fd)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Turns what the system has against the use of a folder into a StoreError that names it."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the data folder {folder} cannot be used ({error.strerror}: {error.filename}): give another one by HEXHAIL_DATA_DIR"
        ) from error


def fits_a_socket(folder: Path) -> bool:
    """Can a socket in this folder be reached, by a path short enough and without a character that needs quoting?"""
    longest = os.fsencode(folder / _LONGEST_SOCKET_NAME)
    return len(longest) <= _SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(str(folder)) is not None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _opened(path: Path, opened: list[int]) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    opened.append(fd)
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _hold(fd: int, data_dir: Path) -> None:
    if not _locked(fd):
        holder = _read(fd) or "unknown"
        raise StoreError(
            f"the data folder {data_dir} is in use by another process (pid {holder}): "
            "stop that one, or give another folder by HEXHAIL_DATA_DIR"
        )
    _write(fd, str(os.getpid()))


async def _wait_for_stale_children(fd: int, data_dir: Path) -> None:
    """The servers of a run that was killed may need a moment to end; until then the folder is theirs."""
    end = time.monotonic() + _STALE_CHILD_S
    while not _locked(fd):
        if time.monotonic() > end:
            raise StoreError(
                f"a server of an earlier run still uses the data folder {data_dir}: "
                "end it, or give another folder by HEXHAIL_DATA_DIR"
            )
        await asyncio.sleep(_POLL_S)


def _read(fd: int) -> str:
    return os.fsdecode(os.pread(fd, 4096, 0)).strip()


def _write(fd: int, text: str) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, os.fsencode(text), 0)


def _short_private_folder() -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  (mkdtemp makes it private, whoever owns the parent)
        if fits_a_socket(Path(parent) / f"{_PREFIX}12345678"):
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    raise StoreError("no temporary folder has a path short enough for a socket: set TMPDIR to a short one")


def _remove_leftover(recorded: str) -> None:
    """Removes the temporary folder of a run that was killed, if it still is one of ours."""
    folder = Path(recorded)
    if not recorded or not folder.name.startswith(_PREFIX) or not folder.exists():
        return
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and (os.geteuid() in (0, found.st_uid)):
        shutil.rmtree(folder, ignore_errors=True)


def _fresh_log(path: Path) -> Path:
    """An empty log; the one of the run before is kept beside it."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))
    path.touch(mode=0o600)
    return path
