"""Where does an encoded line run? The format in which routing engines write the geometry of a route.

Source: Google, Encoded Polyline Algorithm Format, with six decimals in place of five, as OSRM ("polyline6") and Valhalla have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats

_FIRST, _MORE, _BITS = 63, 0x20, 5
_LONGEST = 30
"""Bits of a value; 180 degrees with six decimals, and its sign, take 29."""


def decode_polyline(text: str, decimals: int = 6) -> Floats:
    """float64[k, 2], lat and lng in degrees. Raises ValueError for what is no line on the globe."""
    values: list[int] = []
    value = shift = 0
    for character in text:
        chunk = ord(character) - _FIRST
        if not 0 <= chunk < 2 * _MORE or shift > _LONGEST:
            raise ValueError("the line is not encoded as a polyline")
        value |= (chunk & (_MORE - 1)) << shift
        shift += _BITS
        if chunk < _MORE:
            values.append(~(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    if shift or len(values) % 2:
        raise ValueError("the line breaks off in the middle of a point")
    places = np.cumsum(np.array(values, dtype=np.int64).reshape(-1, 2), axis=0) / 10.0**decimals
    if (np.abs(places) > (90.0, 180.0)).any():
        raise ValueError("the line leaves the globe")
    return places
