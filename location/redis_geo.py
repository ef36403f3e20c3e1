"""Redis's own geometry: the scores of GEO sets, and how far to search so that nobody within a distance is missed. Pure.

Source: the GEOADD and GEOSEARCH documentation of Redis; the score is the geohash of 52 bits, latitude in the even bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from hexhail.kernel.units import Cells, Floats

MAX_LAT: Final = 85.05112878
"""Beyond these latitudes GEO sets hold nothing."""

_STEPS: Final = 1 << 26
_ROUNDING_M: Final = 1.0
"""More than a coordinate moves by being cut to 26 bits: 0.3 m along either axis."""
_EARTHS: Final = 1.001
"""Redis's Earth is larger than ours by 0.028 %; its distances are scaled by more than that."""

_SPREADS: Final = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    )
)


def geo_scores(lat: Floats, lng: Floats) -> Cells:
    """The score under which GEOADD would keep each place: float64[n], float64[n], degrees -> uint64[n]."""
    south_north = ((lat + MAX_LAT) / (2 * MAX_LAT) * _STEPS).astype(np.uint64)
    west_east = ((lng + 180.0) / 360.0 * _STEPS).astype(np.uint64)
    return _spread(south_north) | (_spread(west_east) << np.uint64(1))


def search_radius_m(reach_m: float) -> float:
    """What radius must GEOSEARCH be given so that it finds all who are within `reach_m`?"""
    return reach_m * _EARTHS + _ROUNDING_M


def _spread(values: Cells) -> Cells:
    """Each value's bits, moved to the even places."""
    for shift, mask in _SPREADS:
        values = (values | (values << shift)) & mask
    return values
