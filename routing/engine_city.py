"""From a city's `[routing]` table to the source of an engine's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hexhail.kernel.clock import SystemClock
from hexhail.kernel.tables import TableError, structure
from routing.engine import EngineSource
from routing.engine_params import OsrmParams, ValhallaParams
from routing.osrm import OsrmDialect
from routing.valhalla import ValhallaDialect

if TYPE_CHECKING:
    from hexhail.kernel.clock import Clock
    from routing.engine_params import EngineParams
    from routing.engine_replies import Dialect
    from routing.sources import RouterSource

ENGINE_KINDS = ("osrm", "valhalla")
FALLBACK = "fallback"


def fallback_of(table: Mapping[str, object]) -> Mapping[str, object]:
    """The `[routing]` table of the router in this process that answers when the engine does not. Raises TableError."""
    fallback, kind = table.get(FALLBACK), table.get("kind")
    if not isinstance(fallback, Mapping):
        raise TableError(f"routing: {FALLBACK} is missing: the table [routing.{FALLBACK}], which answers when {kind} does not")
    if fallback.get("kind") in ENGINE_KINDS:
        raise TableError(f"routing.{FALLBACK}: kind is {fallback['kind']!r}: what falls back on an engine is no fallback")
    return fallback


def dialect_for(table: Mapping[str, object], time_zone: str) -> tuple[Dialect, EngineParams]:
    """How the engine of a `[routing]` table is asked. Raises ValueError for unknown keys and unfit values."""
    rest = {key: value for key, value in table.items() if key not in {"kind", FALLBACK}}
    if table.get("kind") == "osrm":
        osrm = structure(rest, OsrmParams, "routing")
        return OsrmDialect(osrm), osrm
    if table.get("kind") == "valhalla":
        valhalla = structure(rest, ValhallaParams, "routing")
        return ValhallaDialect(valhalla, time_zone), valhalla
    raise ValueError(f"routing: kind is {table.get('kind')!r}, not one of {', '.join(ENGINE_KINDS)}")


def engine_source(
    city_id: str, table: Mapping[str, object], time_zone: str, fallback: RouterSource, clock: Clock | None = None
) -> EngineSource:
    """The source that a `[routing]` table of an engine describes. Nothing is sent before it is asked. Raises ValueError."""
    dialect, params = dialect_for(table, time_zone)
    return EngineSource(city_id, dialect, params, fallback, clock or SystemClock())
