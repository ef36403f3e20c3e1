"""What does a counter count? Dataclasses of counters say it at each field, so that one place can show them all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HELP, _BY, _KINDS = "help", "by", "kinds"


def counter(help_text: str) -> int:
    """A field that counts one thing, from 0."""
    number: int = field(default=0, metadata={_HELP: help_text})
    return number


def counted_by(label: str, kinds: Iterable[Any], help_text: str) -> dict[str, Any]:
    """The metadata of a Counter that counts one thing apart by `label`; those of `kinds` are shown before they happen."""
    return {_HELP: help_text, _BY: label, _KINDS: tuple(kinds)}


@dataclass(frozen=True, slots=True)
class Reading:
    """One counter as it stands.

    label : what `values` is told apart by; empty for a single number, whose key is then empty too
    """

    name: str
    help_text: str
    label: str
    values: dict[str, int]


def readings(counters: Any) -> Iterator[Reading]:
    """Every field of a dataclass of counters. Raises TypeError where one is none.

    Another thread may ask: what is counted meanwhile is in the next reading.
    """
    for each in fields(counters):
        value, about = getattr(counters, each.name), each.metadata
        help_text = about.get(_HELP, each.name.replace("_", " ").capitalize() + ".")
        if isinstance(value, Counter):
            counted = dict.fromkeys(about.get(_KINDS, ()), 0) | dict(value)
            yield Reading(each.name, help_text, about.get(_BY, "kind"), {_name(key): n for key, n in counted.items()})
        elif isinstance(value, Integral):
            yield Reading(each.name, help_text, "", {"": int(value)})
        else:
            raise TypeError(f"{type(counters).__name__}.{each.name} is no counter, but a {type(value).__name__}")


def _name(kind: object) -> str:
    """Enums by the names of their members, as the wire has them."""
    return str(getattr(kind, "name", kind))
