"""PostgreSQL refuses root: as whom it runs instead, and what an ordinary user sees."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from hexhail.embedded import StoreError, check_postgres, embedded_postgres
from hexhail.embedded import identity as identities
from hexhail.embedded.binaries import postgres_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARENT = Path(__file__).with_name("parent.py")
ROOT = Path(__file__).parents[2]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def reachable_by_others(path: Path) -> bool:
    """May any user enter the folders that lead there, and read it?"""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents) if folder.is_dir()) and bool(
        path.stat().st_mode & 0o004
    )


@pytest.fixture
def python() -> Iterator[list[str]]:
    """The command of this interpreter for an ordinary user, in a mount namespace where its own folder is closed to others."""
    interpreter = Path(sys.executable).resolve()
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if not all(reachable_by_others(path) for path in (ROOT, Path(psutil.__file__), postgres_binaries() / "postgres")):
        pytest.skip("the packages are in a folder that an ordinary user may not enter")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    if reachable_by_others(interpreter):
        yield [*drop, str(interpreter)]
        return
    open_dir = Path(tempfile.mkdtemp(prefix="hx", dir="/tmp"))
    open_dir.chmod(0o755)
    try:
        mount = f'mount --bind "{sys.base_prefix}" "{open_dir}" && exec "$@"'
        there = ["unshare", "--mount", "sh", "-c", mount, "sh"]
        if subprocess.run([*there, "true"], check=False, capture_output=True).returncode != 0:
            pytest.skip("the interpreter is in a folder that an ordinary user may not enter")
        library_path = ["env", f"LD_LIBRARY_PATH={open_dir / 'lib'}"]
        yield [*there, *drop, *library_path, str(open_dir / interpreter.relative_to(sys.base_prefix))]
    finally:
        open_dir.rmdir()


@as_root
def test_an_ordinary_user_runs_both_stores_as_itself(
    data_dir: Path, python: list[str], living: Callable[[Path], list[str]], until: Callable[..., None]
) -> None:
    data_dir.mkdir()
    os.chown(data_dir, NOBODY, NOBODY)
    packages = Path(psutil.__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}

    with subprocess.Popen(
        [*python, str(PARENT), str(data_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as parent:
        try:
            assert parent.stdout is not None
            ready = parent.stdout.readline()
        finally:
            parent.terminate()
        _, errors = parent.communicate(timeout=20)

    assert ready.startswith("READY"), errors
    assert (data_dir / "postgres" / "PG_VERSION").stat().st_uid == NOBODY
    until(lambda: not living(data_dir), within_s=5.0)


@as_root
async def test_where_namespaces_are_forbidden_root_lends_the_folder_to_nobody(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reachable_by_others(postgres_binaries() / "postgres"):
        pytest.skip("the packages are in a folder that nobody may not enter")
    others = [found for found in identities.candidates() if "user" in found.preparation]
    forbidden = identities.Identity(0, 0, ("namespace", "no number", "1"))
    monkeypatch.setattr(identities, "candidates", lambda: (forbidden, *others))

    async with embedded_postgres(data_dir, durable=False) as dsn:
        await check_postgres(dsn)
        assert (data_dir / "postgres" / "PG_VERSION").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    monkeypatch.undo()

    async with embedded_postgres(data_dir, durable=False) as dsn:
        await check_postgres(dsn)


async def test_where_no_user_will_do_the_error_says_what_to_do(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        identities, "candidates", lambda: (identities.Identity(os.geteuid(), os.getegid(), ("user", "-7", "-7")),)
    )

    with pytest.raises(StoreError, match=r"run as an ordinary user, or set HEXHAIL_POSTGRES_DSN"):
        async with embedded_postgres(data_dir, durable=False):
            pass


def test_a_user_without_a_name_gets_one_inside_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)

    (only,) = identities.candidates()

    assert only.preparation[0] == "namespace"
    assert only.file_uid == 3_999_999_999
