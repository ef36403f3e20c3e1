"""The scripts that change or read one bucket in one step: their text in `lua/`, and the names under which a server knows them."""

from __future__ import annotations

from importlib import resources
from typing import Final

from hexhail.stores.script import Script


def _script(name: str) -> Script:
    folder = resources.files("location") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name))
    return Script.of(text)


WRITE_FIXES: Final = _script("write_fixes")
WRITE_STATES: Final = _script("write_states")
READ_NEAR: Final = _script("read_near")
READ_CHANGES: Final = _script("read_changes")
SWEEP: Final = _script("sweep")
ERASE: Final = _script("erase")

OPEN_SESSION: Final = Script.of(
    """
    local session = math.max(tonumber(ARGV[1]), (tonumber(redis.call('GET', KEYS[1])) or 0) + 1)
    redis.call('SET', KEYS[1], string.format('%.0f', session))
    return session
    """
)
"""KEYS: session. ARGV: at least. Returns an id newer than all before."""

COMPLETE_EPOCH: Final = Script.of(
    """
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[2], ARGV[1])
    return 1
    """
)
"""KEYS: epoch, told. ARGV: epoch. Returns whether it still is the epoch."""

ALL: Final = (WRITE_FIXES, WRITE_STATES, READ_NEAR, READ_CHANGES, SWEEP, ERASE, OPEN_SESSION, COMPLETE_EPOCH)
