"""Who and what: ids, their forms, and how new ones are made. Every id of ours names its city and sorts by time."""

from __future__ import annotations

import re
import zlib
from typing import NewType

from ulid import ULID

from hexhail.kernel.errors import invalid

CityId = NewType("CityId", str)
DriverId = NewType("DriverId", str)
RiderId = NewType("RiderId", str)
FleetId = NewType("FleetId", str)
RideId = NewType("RideId", str)
OfferId = NewType("OfferId", str)
QuoteId = NewType("QuoteId", str)

MAX_ID_LENGTH = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CITY = re.compile(r"[a-z][a-z0-9_]{0,30}")
_MINTED = re.compile(r"([a-z][a-z0-9_]{0,30})-[0-9A-HJKMNP-TV-Z]{26}")


def check_name(field: str, value: str) -> str:
    """Is this an id that a client may have made: 1 to 64 of A-Z, a-z, 0-9, dot, underscore, hyphen, not begun by a sign?

    Raises INVALID_FIELD otherwise.
    """
    if not value:
        raise invalid(field, "is empty")
    if len(value) > MAX_ID_LENGTH:
        raise invalid(field, f"is longer than {MAX_ID_LENGTH} characters")
    if not _NAME.fullmatch(value):
        raise invalid(field, "holds characters other than A-Z, a-z, 0-9, dot, underscore and hyphen, or begins with a sign")
    return value


def check_city_name(value: str) -> CityId:
    """Is this the form of a city's id? Raises INVALID_FIELD otherwise."""
    if not _CITY.fullmatch(value):
        raise invalid("city_id", "is not of the form a-z, 0-9, underscore (at most 31 characters)")
    return CityId(value)


def mint(city_id: CityId, now_ms: int) -> str:
    """A new id of this city that sorts after all made in earlier milliseconds: `manhattan-01KACW4J...`."""
    return f"{city_id}-{ULID.from_timestamp(now_ms)}"


def check_minted(field: str, value: str) -> CityId:
    """Which city does this id of ours name? Raises INVALID_FIELD where it is not of our form."""
    match = _MINTED.fullmatch(value)
    if match is None:
        raise invalid(field, "is not an id that this system makes")
    return CityId(match[1])


def bucket_of(driver_id: str, buckets: int) -> int:
    """Which bucket of its city holds a driver? A stable hash: the same in every process and version."""
    return zlib.crc32(driver_id.encode()) % buckets


def fleet_of(driver_id: str) -> str:
    """Which fleet does a driver belong to? `acme.d17` is acme's; a driver without a dot drives for itself (empty answer)."""
    fleet_id, dot, _ = driver_id.partition(".")
    return fleet_id if dot else ""
