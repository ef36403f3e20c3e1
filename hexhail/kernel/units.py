"""Sizes of things, where a bare number would hide what it means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MS_PER_S = 1000
E7 = 10_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Cells = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def to_e7(degrees: Floats) -> npt.NDArray[np.int32]:
    """Degrees as integers of 1e-7 degrees (about 1 cm)."""
    return np.rint(degrees * E7).astype(np.int32)


def from_e7(e7: npt.NDArray[np.int32]) -> Floats:
    """Integers of 1e-7 degrees as degrees."""
    return e7.astype(np.float64) / E7
