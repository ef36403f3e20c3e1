"""From a table of a TOML file to a frozen dataclass: strict types, unknown keys refused, every complaint with its key."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import cattrs

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class TableError(ValueError):
    """A table does not say what it should; one line says where and what."""


def structure(table: Mapping[str, object], kind: type[T], where: str) -> T:
    """The dataclass that a table describes. `where` begins the keys in complaints. Raises TableError."""
    try:
        return _converter().structure(table, kind)
    except cattrs.BaseValidationError as error:
        problems = cattrs.transform_error(error, path=where, format_exception=_problem)
        raise TableError("; ".join(problems)) from None
    except (ValueError, TypeError) as error:
        raise TableError(f"{where}: {error}") from None


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(str, _str)
    converter.register_structure_hook(bool, _bool)
    return converter


def _problem(error: BaseException, _kind: type | None) -> str:
    if isinstance(error, KeyError):
        return "required, and missing"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown keys: {', '.join(sorted(error.extra_fields))}"
    return str(error)


def _float(value: Any, _kind: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _int(value: Any, _kind: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _str(value: Any, _kind: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _bool(value: Any, _kind: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
