"""How a city asks an external routing engine: the `[routing]` table of its file, where `kind` is osrm or valhalla."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from routing.breaker import BreakerParams

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class EngineParams:
    """What holds for every engine. Raises ValueError naming the field.

    url : where it listens, http:// or https://, with the path that its services lie below, if any
    deadline_s : of a whole question, retries and all blocks of a matrix included; then the fallback answers
    time_factor : how much longer a way takes than the engine says
    snap_limit_m : a place farther than this from the engine's network is off it
    approach_speed_mps : how fast one covers the straight line between a place and the network
    terminal_s : what every trip takes besides, for setting out and pulling up; half of it at either end
    top_speed_mps : the engine is taken to drive no faster (both engines' cars: 140 km/h)
    attempts : how often a request is sent at most, where the fault may pass
    retry_wait_s : before the first repetition; it doubles with each
    questions_at_once : more than these wait for their turn, within their deadline
    requests_at_once : so many of one question's requests are under way together
    breaker : when the engine is left alone
    """

    url: str
    deadline_s: float = 0.5
    time_factor: float = 1.0
    snap_limit_m: float = 300.0
    approach_speed_mps: float = 5.0
    terminal_s: float = 0.0
    top_speed_mps: float = 40.0
    attempts: int = 2
    retry_wait_s: float = 0.02
    questions_at_once: int = 8
    requests_at_once: int = 4
    breaker: BreakerParams = field(default_factory=BreakerParams)

    def __post_init__(self) -> None:
        check_url(self.url)
        for name in ("deadline_s", "time_factor", "snap_limit_m", "approach_speed_mps", "top_speed_mps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")
        for name in ("retry_wait_s", "terminal_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}, not 0 or more")
        for name in ("attempts", "questions_at_once", "requests_at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not 1 or more")


@dataclass(frozen=True, slots=True)
class OsrmParams(EngineParams):
    """What OSRM is asked for. Raises ValueError naming the field.

    profile : the path segment behind the version; osrm-routed serves one profile and takes any word
    max_table_size : as osrm-routed's --max-table-size
    """

    profile: str = "driving"
    max_table_size: int = 100

    def __post_init__(self) -> None:
        EngineParams.__post_init__(self)
        _check_word("profile", self.profile)
        if self.max_table_size < 2:
            raise ValueError(f"max_table_size is {self.max_table_size}, not 2 or more")


@dataclass(frozen=True, slots=True)
class ValhallaParams(EngineParams):
    """What Valhalla is asked for. Raises ValueError naming the field.

    costing : the costing model, such as auto or taxi
    max_matrix_location_pairs : as in its service_limits for this costing
    departure : whether it hears when one departs. Its matrices then have at most as many origins as destinations, so that
        fifty origins and one destination are fifty requests
    """

    costing: str = "auto"
    max_matrix_location_pairs: int = 2500
    departure: bool = False

    def __post_init__(self) -> None:
        EngineParams.__post_init__(self)
        _check_word("costing", self.costing)
        if self.max_matrix_location_pairs < 1:
            raise ValueError(f"max_matrix_location_pairs is {self.max_matrix_location_pairs}, not 1 or more")


def check_url(url: str) -> None:
    """Raises ValueError for what is no address of an engine."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0)
    except ValueError:
        whole = False
    if not whole or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("url is not http://HOST:PORT or https://HOST:PORT, with a path or without")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("url holds more than host, port and path (secrets do not belong into a city's file)")


def version_of(kind: str, params: EngineParams, *what: object) -> str:
    """A name for all that an engine's answers depend on, as far as the city's file says it."""
    names = ("url", "time_factor", "snap_limit_m", "approach_speed_mps", "terminal_s", "top_speed_mps")
    depends_on = (*(getattr(params, name) for name in names), *what)
    return f"{kind}-{hashlib.blake2b(repr(depends_on).encode(), digest_size=6).hexdigest()}"


def _check_word(name: str, value: str) -> None:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{name} is {value!r}, not a word of letters, digits, dots, dashes and underscores")
