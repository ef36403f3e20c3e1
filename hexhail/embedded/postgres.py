"""A PostgreSQL of one's own: its data stays in the folder, and is there again at the next start."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
import psutil

from hexhail.embedded.binaries import postgres_binaries
from hexhail.embedded.errors import POSTGRES_DSN_VARIABLE, StoreError, shown
from hexhail.embedded.folder import store_folder, usable
from hexhail.embedded.identity import Identity, own, postgres_identity
from hexhail.embedded.process import Child, Launch, StopStep
from hexhail.embedded.versions import judge_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hexhail.embedded.folder import StoreFolder

_READY_S: Final = 60.0
_INIT_S: Final = 120.0
_ANSWER_S: Final = 5.0
_ADVICE: Final = f"start it, correct {POSTGRES_DSN_VARIABLE}, or unset that to run the embedded one"
# SIGTERM would wait for the clients to go; SIGINT sends them away, SIGQUIT does not even tidy up.
_STOP: Final = (StopStep(signal.SIGINT, 5.0), StopStep(signal.SIGQUIT, 6.0))
_NAME: Final = "hexhail"
_LONGEST_CLUSTER_NAME: Final = 63
_NOT_DURABLE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, durable: bool = True) -> AsyncIterator[str]:
    """Runs a PostgreSQL on a Unix socket, with its data in `<data_dir>/postgres`, while the context lasts; gives its DSN.

    Without `durable` a commit may be lost, or the data spoiled, when the machine stops: for tests.
    Raises StoreError when the folder is in use or unusable, or when the server does not start (with its last words).
    """
    binaries = postgres_binaries()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    async with store_folder(data_dir, "postgres") as folder:
        identity = await postgres_identity(folder, binaries / "postgres", environment)
        server = _Server(folder, binaries, identity, environment, durable)
        await server.prepare()
        child = Child(server.launch())
        try:
            dsn = server.dsn(_NAME)
            await child.ready(server.why_not_ready, _READY_S)
            yield dsn
        finally:
            await child.stop(_STOP)


async def check_postgres(dsn: str) -> None:
    """Does a server that we can work with answer at this address? Raises StoreError, on one line, where not."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_ANSWER_S, command_timeout=_ANSWER_S)
        try:
            version = await connection.fetchval("SELECT version()")
            number = await connection.fetchval("SELECT current_setting('server_version_num')::int")
        finally:
            await connection.close(timeout=_ANSWER_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StoreError(f"no PostgreSQL answers at {shown(dsn)} ({reason}): {_ADVICE}") from error
    objection = judge_postgres(str(version), int(number)).objection
    if objection is not None:
        raise StoreError(f"at {shown(dsn)}: {objection}")


class _Server:
    """How one data folder is made and served."""

    def __init__(
        self, folder: StoreFolder, binaries: Path, identity: Identity, environment: dict[str, str], durable: bool
    ) -> None:
        self._folder = folder
        self._binaries = binaries
        self._identity = identity
        self._environment = environment
        self._durable = durable

    async def prepare(self) -> None:
        """Makes the data folder where there is none, and clears what a killed server left in it."""
        data = self._folder.path
        with usable(data):
            if not data.exists():
                await self._initialise()
            own(data, self._identity)
            own(self._folder.socket_dir, self._identity)
            _remove_stale_pid_file(data)

    async def _initialise(self) -> None:
        """Makes the data beside its place and moves it there when it is whole, so that half of it is never served."""
        data = self._folder.path
        unfinished = data.with_name(f"{data.name}.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        own(unfinished, self._identity)
        child = Child(
            self._as_server(
                "initdb",
                *("-D", str(unfinished), "-U", _NAME, "--auth=trust", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(() if self._durable else ("--no-sync",)),
                death_signal=signal.SIGKILL,
            )
        )
        try:
            await child.finished(_INIT_S)
        finally:
            await child.stop(())
        unfinished.rename(data)
        if self._durable:
            _sync_names(self._folder.data_dir)

    def launch(self) -> Launch:
        """The server's command."""
        data = str(self._folder.path)
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self._folder.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if len(data) <= _LONGEST_CLUSTER_NAME and data.isascii() and data.isprintable():
            # Its processes rename themselves; this keeps the data folder in their names.
            settings["cluster_name"] = data
        if not self._durable:
            settings |= _NOT_DURABLE
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._as_server("postgres", "-D", data, *options, death_signal=signal.SIGQUIT)

    def dsn(self, database: str) -> str:
        """Where the server answers."""
        return f"postgresql://{_NAME}@/{database}?host={self._folder.socket_dir}&port=5432"

    async def why_not_ready(self) -> str | None:
        """None once the server answers and has our database. Raises StoreError where waiting will not help."""
        try:
            try:
                await _visit(self.dsn(_NAME), None)
            except asyncpg.InvalidCatalogNameError:
                await _visit(self.dsn("postgres"), f"CREATE DATABASE {_NAME}")
        except (asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, OSError) as error:
            return str(error) or type(error).__name__
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreError(f"the PostgreSQL of {self._folder.path} refuses us: {error}") from error
        return None

    def _as_server(self, program: str, *arguments: str, death_signal: signal.Signals) -> Launch:
        return Launch(
            name="PostgreSQL" if program == "postgres" else f"PostgreSQL's {program}",
            argv=(str(self._binaries / program), *arguments),
            death_signal=death_signal,
            log=self._folder.log,
            preparation=self._identity.preparation,
            held_fds=(self._folder.child_lock_fd,),
            environment=self._environment,
        )


async def _visit(dsn: str, statement: str | None) -> None:
    connection = await asyncpg.connect(dsn, timeout=_ANSWER_S)
    try:
        if statement is not None:
            await connection.execute(statement)
    finally:
        await connection.close(timeout=_ANSWER_S)


def _sync_names(folder: Path) -> None:
    """Has the disk remember the names in a folder: a move alone can be undone by a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_stale_pid_file(data: Path) -> None:
    """Removes the note of a server that was killed, unless its process is one that lives in this folder.

    PostgreSQL itself takes any process that has since got the same number for the server, and then refuses to start.
    """
    note = data / "postmaster.pid"
    if not note.exists():
        return
    first = note.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
    try:
        if first.isdecimal() and psutil.Process(int(first)).cwd() == str(data.resolve()):
            return
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        pass
    except psutil.AccessDenied:
        return
    note.unlink()
