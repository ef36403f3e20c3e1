"""Is this server one that we can work with? Judged from what it says of itself; no connection is made here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hexhail.embedded.errors import POSTGRES_DSN_VARIABLE, REDIS_URL_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

VALKEY_NEEDED: Final = (7, 2)
REDIS_NEEDED: Final = (7, 0)
POSTGRES_NEEDED: Final = 15

# Servers that speak the protocol, and name a Redis version, without being one.
_FOREIGN_FIELDS: Final = ("dragonfly_version", "garnet_version")

_VALKEY_ADVICE: Final = f"need Valkey >= 7.2 or Redis >= 7.0: correct {REDIS_URL_VARIABLE}, or unset it to run the embedded one"
_POSTGRES_ADVICE: Final = f"need PostgreSQL >= 15: correct {POSTGRES_DSN_VARIABLE}, or unset it to run the embedded one"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server is, and what speaks against it (None: nothing)."""

    found: str
    objection: str | None = None

    @property
    def accepted(self) -> bool:
        """Can we work with it?"""
        return self.objection is None


def judge_valkey(info: Mapping[str, object]) -> Verdict:
    """Does the server section of INFO describe Valkey >= 7.2 or Redis >= 7.0, serving data?

    A Valkey gives 7.2.4 as its `redis_version` for ever: its own number is in `valkey_version`.
    """
    name = str(info.get("server_name", "redis")).lower()
    name = next((field.removesuffix("_version") for field in _FOREIGN_FIELDS if field in info), name)
    if name not in {"valkey", "redis"}:
        return Verdict(name, f"found {name}; {_VALKEY_ADVICE}")
    is_valkey = name == "valkey" or "valkey_version" in info
    product, needed = ("Valkey", VALKEY_NEEDED) if is_valkey else ("Redis", REDIS_NEEDED)
    text = str(info.get("valkey_version") or info.get("redis_version") or "")
    found = f"{product} {text or 'of unknown version'}"
    if _mode(info) == "sentinel":
        return Verdict(found, f"found a Sentinel, which holds no data; {_VALKEY_ADVICE}")
    if _numbers(text)[:2] < needed:
        return Verdict(found, f"found {found}; {_VALKEY_ADVICE}")
    return Verdict(found)


def is_clustered(info: Mapping[str, object]) -> bool:
    """Does the server section of INFO describe a node of a cluster?"""
    return _mode(info) == "cluster"


def judge_postgres(version: str, version_num: int) -> Verdict:
    """Do `version()` and `server_version_num` describe PostgreSQL >= 15?"""
    found = re.sub(r"^(PostgreSQL \S+).*", r"\1", version, flags=re.DOTALL)
    if not version.startswith("PostgreSQL ") or version_num // 10_000 < POSTGRES_NEEDED:
        return Verdict(found, f"found {found}; {_POSTGRES_ADVICE}")
    return Verdict(found)


def _mode(info: Mapping[str, object]) -> object:
    return info.get("valkey_mode" if "valkey_mode" in info else "server_mode", info.get("redis_mode", "standalone"))


def _numbers(text: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()
