"""How does a server become a child that ends with its parent? This script prepares the process, then becomes the server.

    launch.py <parent pid> <death signal> [namespace <uid> <gid> | user <uid> <gid>] [reach <folder>] -- <argv...>

Credentials come first, since changing them clears the parent-death signal; the signal comes second; and the parent is
looked at last, because one that died before the signal was set sends none. Standard library only: it runs isolated,
without site-packages.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_UNUSABLE = 126
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def enter_namespace(uid: int, gid: int) -> None:
    """Makes this user `uid` inside a user namespace of its own; outside nothing changes.

    Raises OSError where that is not permitted.
    """
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)


def become_user(uid: int, gid: int) -> None:
    """Gives up this user for `uid`, for good. Raises OSError where that is not permitted."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def follow_parent(parent_pid: int, death_signal: int) -> None:
    """Has the kernel send `death_signal` when the parent ends; ends at once if it already has."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        raise SystemExit(f"the parent {parent_pid} has ended")


def main(arguments: list[str]) -> None:
    """Prepares this process as the arguments say, and becomes the server."""
    split = arguments.index("--")
    options, argv = arguments[:split], arguments[split + 1 :]
    parent_pid, death_signal = int(options.pop(0)), int(options.pop(0))
    try:
        while options:
            match options:
                case ["namespace", uid, gid, *options]:
                    enter_namespace(int(uid), int(gid))
                case ["user", uid, gid, *options]:
                    become_user(int(uid), int(gid))
                case ["reach", folder, *options]:
                    if not os.access(folder, os.X_OK):
                        raise PermissionError(f"uid {os.geteuid()} may not enter {folder}")
                case _:
                    raise SystemExit(f"unknown options {options}")
        follow_parent(parent_pid, death_signal)
        os.execv(argv[0], argv)  # noqa: S606  (becoming the server, without a shell, is the point)
    except OSError as error:
        print(f"cannot start {argv[0]}: {error}", file=sys.stderr)
        raise SystemExit(_UNUSABLE) from None


if __name__ == "__main__":
    main(sys.argv[1:])
