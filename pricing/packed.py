"""How a surge lies in the store: a header of fixed length, then four columns, little-endian."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from pricing.model import Surge, SurgeTable

_HEADER: Final = struct.Struct("<4s16sQqBBxxI")
_MAGIC: Final = b"HXS1"
EPOCH_LENGTH: Final = 16
HEADER_BYTES: Final = _HEADER.size
"""Two packed surges are the same publication where their first HEADER_BYTES are equal."""
_LARGEST: Final = 2**32 - 1


def pack_surge(surge: Surge, resolution: int) -> bytes:
    """The bytes of a surge whose cells are of this H3 resolution. Counts beyond 32 bits are cut to the largest."""
    epoch = surge.epoch.encode("ascii")
    if len(epoch) != EPOCH_LENGTH:
        raise ValueError(f"an epoch has {EPOCH_LENGTH} characters, not {len(epoch)}")
    table = surge.table
    header = _HEADER.pack(_MAGIC, epoch, surge.version, surge.as_of_ms, surge.stale, resolution, len(table))
    columns = (table.multiplier_milli, table.supply, table.demand_milli)
    return b"".join(
        (header, table.cells.astype("<u8").tobytes(), *(np.minimum(c, _LARGEST).astype("<u4").tobytes() for c in columns))
    )


def unpack_surge(packed: bytes, resolution: int) -> Surge:
    """The surge of these bytes. Raises ValueError where they are not one of this resolution, or damaged."""
    if len(packed) < HEADER_BYTES:
        raise ValueError("shorter than a header")
    magic, epoch, version, as_of_ms, stale, found, n = _HEADER.unpack_from(packed)
    if magic != _MAGIC or found != resolution or len(packed) != HEADER_BYTES + 20 * n:
        raise ValueError(f"not a surge of resolution {resolution}")
    cells = np.frombuffer(packed, "<u8", n, HEADER_BYTES)
    multiplier, supply, demand = (
        np.frombuffer(packed, "<u4", n, HEADER_BYTES + 8 * n + 4 * n * column).astype(np.int64) for column in range(3)
    )
    return Surge(epoch.decode("ascii"), version, as_of_ms, bool(stale), SurgeTable(cells, multiplier, supply, demand))
