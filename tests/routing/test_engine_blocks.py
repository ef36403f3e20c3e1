"""Matrices in blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from routing.engine_blocks import cut, halves

side = st.integers(0, 60)


@given(side, side, st.integers(1, 30), st.integers(1, 200), st.booleans())
def test_blocks_cover_each_pair_once_within_the_limits(n: int, m: int, max_side: int, max_pairs: int, narrow: bool) -> None:
    times = np.zeros((n, m), dtype=np.int64)
    for rows, columns in cut(n, m, max_side, max_pairs, narrow):
        height, width = times[rows, columns].shape
        times[rows, columns] += 1
        assert 0 < height <= max_side
        assert 0 < width <= max_side
        assert height * width <= max_pairs
        assert not narrow or height <= width

    assert (times == 1).all()


def test_what_fits_is_one_block_and_what_does_not_is_nearly_square() -> None:
    assert len(cut(50, 1, 100, 10_000)) == 1
    assert len(cut(50, 50, 2500, 2500)) == 1
    assert len(cut(2500, 1, 2500, 2500)) == 1
    assert len(cut(1000, 3000, 100, 10_000)) == 300
    assert len(cut(1000, 3000, 2500, 2500)) == 1200


@given(st.integers(1, 40), st.integers(1, 40))
def test_halves_are_two_parts_of_every_block_of_more_than_one_pair(n: int, m: int) -> None:
    if n * m == 1:
        return
    times = np.zeros((n, m), dtype=np.int64)
    for rows, columns in halves(n, m):
        assert times[rows, columns].size
        times[rows, columns] += 1

    assert (times == 1).all()
