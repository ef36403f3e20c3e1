"""As whom may PostgreSQL run? It refuses root, and a user without a name; a user namespace or another user helps."""

from __future__ import annotations

import os
import pwd
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hexhail.embedded.errors import POSTGRES_DSN_VARIABLE, StoreError
from hexhail.embedded.process import Child, Launch

if TYPE_CHECKING:
    from pathlib import Path

    from hexhail.embedded.folder import StoreFolder

_PROBE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a server is: the owner that its files need, and the options of launch.py that make it so."""

    file_uid: int
    file_gid: int
    preparation: tuple[str, ...] = ()


def candidates() -> tuple[Identity, ...]:
    """Who could run PostgreSQL, best first; the first of several may not be permitted here."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and _has_name(uid):
        return (Identity(uid, gid),)
    named = [user for user in pwd.getpwall() if user.pw_uid != 0]
    inside = [Identity(uid, gid, ("namespace", str(user.pw_uid), str(user.pw_gid))) for user in named[:1]]
    nobody = [user for user in named if user.pw_name == "nobody"] if uid == 0 else []
    outside = [Identity(user.pw_uid, user.pw_gid, ("user", str(user.pw_uid), str(user.pw_gid))) for user in nobody]
    return (*inside, *outside)


async def postgres_identity(folder: StoreFolder, postgres: Path, environment: dict[str, str]) -> Identity:
    """The first candidate that can run `postgres` and enter the data folder.

    Raises StoreError, with what each candidate failed by, where there is none.
    """
    found = candidates()
    if len(found) == 1 and not found[0].preparation:
        return found[0]
    reasons = []
    for identity in found:
        if identity.file_uid != os.geteuid():
            folder.data_dir.chmod(folder.data_dir.stat().st_mode | 0o011)
        probe = Child(
            Launch(
                name="PostgreSQL",
                argv=(str(postgres), "-V", "-D", str(folder.path)),
                death_signal=signal.SIGKILL,
                log=folder.log,
                preparation=(*identity.preparation, "reach", str(folder.data_dir)),
                held_fds=(folder.child_lock_fd,),
                environment=environment,
            )
        )
        try:
            await probe.finished(_PROBE_S)
        except StoreError as error:
            reasons.append(str(error))
        else:
            return identity
        finally:
            await probe.stop(())
    raise StoreError(
        f"PostgreSQL cannot run here for uid {os.geteuid()}: run as an ordinary user, or set {POSTGRES_DSN_VARIABLE} "
        f"({'; '.join(reasons) or 'no other user is known'})"
    )


def own(path: Path, identity: Identity) -> None:
    """Gives a folder and all in it to whom the server will be, if it is not theirs yet."""
    if path.stat().st_uid == identity.file_uid:
        return
    for directory, _, files in os.walk(path, topdown=False):
        os.chown(directory, identity.file_uid, identity.file_gid)
        for file in files:
            os.chown(os.path.join(directory, file), identity.file_uid, identity.file_gid, follow_symlinks=False)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
