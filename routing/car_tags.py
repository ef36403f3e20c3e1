"""May a taxi drive here, in which direction, and how fast? What the tags of a street say. Pure.

Source: the wiki of OpenStreetMap, pages Key:access, Key:oneway, Key:barrier and Key:maxspeed; speeds of classes are our choice.
"""

from __future__ import annotations

import ast
import math
import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SPEED_KMH: Final = 30.0
"""Of a street whose file says nothing. Source: our choice, the general limit of many inner cities."""

MAX_SPEED_KMH: Final = 130.0
"""A street that claims more (a slip in the map) is driven at this, and so is one without a limit."""

CLASS_SPEED_KMH: Final[Mapping[str, float]] = {
    "motorway": 100.0,
    "motorway_link": 60.0,
    "trunk": 80.0,
    "trunk_link": 50.0,
    "primary": 60.0,
    "primary_link": 40.0,
    "secondary": 50.0,
    "secondary_link": 40.0,
    "tertiary": 45.0,
    "tertiary_link": 35.0,
    "unclassified": 40.0,
    "residential": 30.0,
    "living_street": 10.0,
    "road": DEFAULT_SPEED_KMH,
    "service": 15.0,
}
"""How fast one drives on a street that names no limit, by its class; other classes are not for cars. Source: our choice."""

_KM_PER_MILE: Final = 1.609344
_WALK_KMH: Final = 7.0
_ZONE_KMH: Final[Mapping[str, float]] = {
    "urban": 50.0,
    "rural": 90.0,
    "trunk": 100.0,
    "motorway": 120.0,
    "living_street": 10.0,
    "bicycle_road": 30.0,
    "school": 30.0,
    "nsl_restricted": 30 * _KM_PER_MILE,
    "nsl_single": 60 * _KM_PER_MILE,
    "nsl_dual": 70 * _KM_PER_MILE,
    "walk": _WALK_KMH,
}
"""The limit that a sign such as `FR:urban` stands for, where its country has none of its own below."""

_COUNTRY_KMH: Final[Mapping[str, float]] = {
    "at:rural": 100.0,
    "at:motorway": 130.0,
    "de:rural": 100.0,
    "de:motorway": MAX_SPEED_KMH,
    "de:living_street": _WALK_KMH,
    "dk:rural": 80.0,
    "fr:rural": 80.0,
    "fr:motorway": 130.0,
    "gb:motorway": 70 * _KM_PER_MILE,
    "it:motorway": 130.0,
    "nl:rural": 80.0,
    "pl:motorway": 130.0,
    "ro:motorway": 130.0,
    "ru:urban": 60.0,
    "ru:living_street": 20.0,
    "ru:motorway": 110.0,
    "se:rural": 70.0,
    "uk:motorway": 70 * _KM_PER_MILE,
    "us:urban": 25 * _KM_PER_MILE,
    "us:rural": 55 * _KM_PER_MILE,
    "us:motorway": 65 * _KM_PER_MILE,
}

_NOT_ASKED: Final = frozenset({"parking_aisle", "driveway", "drive-through", "emergency_access"})
"""Kinds of `service` roads that lead to one place only."""

_MODES: Final = ("taxi", "psv", "motorcar", "motor_vehicle", "vehicle", "access")
"""Whom a rule is for, the narrowest first: it decides."""

_RULES: Final = frozenset({"highway", "area", "service", "junction", "oneway", "maxspeed", *_MODES})

_CLOSED: Final = frozenset(
    {"no", "private", "agricultural", "forestry", "delivery", "military", "emergency", "permit", "residents"}
)
_BLOCKING: Final = frozenset(
    {
        "block",
        "bollard",
        "bus_trap",
        "chain",
        "cycle_barrier",
        "debris",
        "full-height_turnstile",
        "horse_stile",
        "jersey_barrier",
        "kissing_gate",
        "log",
        "motorcycle_barrier",
        "planter",
        "rope",
        "spikes",
        "stile",
        "sump_buster",
        "turnstile",
    }
)
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(km/?h|kph|kmph|mph|knots)?")
_UNIT_KMH: Final[Mapping[str, float]] = {"mph": _KM_PER_MILE, "knots": 1.852}


class Direction(Enum):
    """Which way along a street?"""

    FORWARD = auto()
    BACKWARD = auto()


def is_rule(key: str) -> bool:
    """Do the functions below that are asked of streets read tags of this key?"""
    return key.partition(":")[0] in _RULES


def is_street(tags: Mapping[str, str]) -> bool:
    """Is this a road of a class that cars use, and not just somebody's driveway?"""
    if tags.get("highway", "") not in CLASS_SPEED_KMH or tags.get("area") == "yes":
        return False
    return not (tags["highway"] == "service" and tags.get("service") in _NOT_ASKED)


def directions(tags: Mapping[str, str]) -> frozenset[Direction]:
    """In which directions may a taxi drive along this street? None, where it is closed.

    A street that is reversed by the hour is closed, for nobody knows here which hour it is; rules that hold at some hours
    only are not read.
    """
    return frozenset(way for way in _one_way(tags) if _may_drive(tags, way))


def blocks(tags: Mapping[str, str]) -> bool:
    """Does what stands at this point keep taxis from passing?"""
    if "barrier" not in tags:
        return False
    for mode in _MODES:
        if mode in tags:
            return _is_closed(tags[mode])
    return tags["barrier"] in _BLOCKING


def speed_kmh(tags: Mapping[str, str], direction: Direction, class_speed_kmh: Mapping[str, float] = CLASS_SPEED_KMH) -> float:
    """How fast does one drive here without traffic: at the limit, or else as on other streets of the class? Above 0.

    That there is no limit is believed of motorways and trunk roads only.
    """
    may_be_endless = tags.get("highway", "").startswith(("motorway", "trunk"))
    for key in (f"maxspeed:{direction.name.lower()}", "maxspeed"):
        limit_kmh = parse_maxspeed(tags[key]) if key in tags and (may_be_endless or tags[key] != "none") else None
        if limit_kmh is not None:
            return limit_kmh
    return class_speed_kmh.get(tags.get("highway", ""), DEFAULT_SPEED_KMH)


def parse_maxspeed(text: str) -> float | None:
    """Which speed does a limit stand for, in km/h? None where it names none.

    Understands `50`, `30 mph`, `none`, `walk`, `DE:urban`, `FR:zone30`; of several (`50;30`, `['30 mph', '25 mph']`), the mean.
    """
    found = [speed for part in list_of(text) if (speed := _single_kmh(part.strip().lower())) is not None]
    return sum(found) / len(found) if found else None


def list_of(text: str) -> list[str]:
    """The values of a tag that may hold several, as OpenStreetMap (`a;b`) or OSMnx (`['a', 'b']`) write them."""
    if text.startswith("[") and text.endswith("]"):
        try:
            parts = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
        return [str(part) for part in parts]
    return text.replace("|", ";").split(";")


def _single_kmh(text: str) -> float | None:
    if text == "none":
        return MAX_SPEED_KMH
    if text == "walk":
        return _WALK_KMH
    country, colon, zone = text.partition(":")
    if colon:
        return _sign_kmh(country, zone)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    speed = float(match[1]) * _UNIT_KMH.get(match[2] or "", 1.0)
    return speed if math.isfinite(speed) and speed > 0 else None


def _sign_kmh(country: str, zone: str) -> float | None:
    of_zone = zone.removeprefix("zone").lstrip(":")
    if of_zone.isascii() and of_zone.isdigit():
        speed = float(of_zone) * (_KM_PER_MILE if country in {"gb", "uk", "us"} else 1.0)
        return speed if 0 < speed <= MAX_SPEED_KMH else None
    return _COUNTRY_KMH.get(f"{country}:{zone}", _ZONE_KMH.get(zone))


def _one_way(tags: Mapping[str, str]) -> tuple[Direction, ...]:
    implied = "yes" if tags.get("junction") in {"roundabout", "circular"} or tags.get("highway") == "motorway" else "no"
    named = next((tags[key] for key in ("oneway:taxi", "oneway:psv", "oneway:motor_vehicle", "oneway") if key in tags), implied)
    value = named.strip().lower()
    if value in {"yes", "true", "1"}:
        return (Direction.FORWARD,)
    if value in {"-1", "reverse"}:
        return (Direction.BACKWARD,)
    if value == "reversible":
        return ()
    if value in {"no", "false", "0", "alternating"} or implied == "no":
        return (Direction.FORWARD, Direction.BACKWARD)
    return (Direction.FORWARD,)


def _may_drive(tags: Mapping[str, str], direction: Direction) -> bool:
    for mode in _MODES:
        for key in (f"{mode}:{direction.name.lower()}", mode):
            if key in tags:
                return not _is_closed(tags[key])
    return True


def _is_closed(rule: str) -> bool:
    return all(part.strip() in _CLOSED for part in rule.split(";"))
