"""Into which requests is a matrix cut that is larger than an engine answers in one?"""

from __future__ import annotations

import math


def cut(n: int, m: int, max_side: int, max_pairs: int, no_more_rows: bool = False) -> list[tuple[slice, slice]]:
    """Blocks of rows and columns that cover each of n x m pairs once, in order.

    None has more than `max_side` rows or columns, nor more than `max_pairs` pairs, nor, with `no_more_rows`, more rows than
    columns. As square as that allows: an engine's work grows with the sides.
    """
    side = math.isqrt(max_pairs)
    rows = min(n, max_side, max(side, max_pairs // m if m else side))
    columns = min(m, max_side, max(max_pairs // rows if rows else side, 1))
    blocks = []
    for j in range(0, m, columns or 1):
        across = slice(j, min(j + columns, m))
        height = min(rows, across.stop - j) if no_more_rows else rows
        blocks += [(slice(i, min(i + height, n)), across) for i in range(0, n, height or 1)]
    return blocks


def halves(n: int, m: int) -> list[tuple[slice, slice]]:
    """The two halves of a block of more than one pair, across its longer side."""
    if n >= m:
        return [(slice(0, n // 2), slice(0, m)), (slice(n // 2, n), slice(0, m))]
    return [(slice(0, n), slice(0, m // 2)), (slice(0, n), slice(m // 2, m))]
