"""A surge comes out of the store as it went in, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.model import Surge, SurgeTable
from pricing.packed import HEADER_BYTES, pack_surge, unpack_surge

U32 = st.integers(0, 2**32 - 1)


@st.composite
def surges(draw: st.DrawFn) -> Surge:
    cells = sorted(draw(st.sets(st.integers(1, 2**63), max_size=20)))
    columns = [np.array(draw(st.lists(U32, min_size=len(cells), max_size=len(cells))), dtype=np.int64) for _ in range(3)]
    table = SurgeTable(np.array(cells, dtype=np.uint64), *columns)
    return Surge("0123456789abcdef", draw(st.integers(1, 2**40)), draw(st.integers(0, 2**45)), draw(st.booleans()), table)


@given(surges())
def test_a_surge_survives_packing(surge: Surge) -> None:
    again = unpack_surge(pack_surge(surge, 8), 8)
    assert (again.epoch, again.version, again.as_of_ms, again.stale) == (
        surge.epoch,
        surge.version,
        surge.as_of_ms,
        surge.stale,
    )
    for name in ("cells", "multiplier_milli", "supply", "demand_milli"):
        assert getattr(again.table, name).tolist() == getattr(surge.table, name).tolist()


@given(surges(), st.data())
def test_a_surge_cut_short_is_refused(surge: Surge, data: st.DataObject) -> None:
    packed = pack_surge(surge, 8)
    with pytest.raises(ValueError):
        unpack_surge(packed[: data.draw(st.integers(0, len(packed) - 1))], 8)


@given(surges())
def test_cells_of_another_resolution_are_refused(surge: Surge) -> None:
    with pytest.raises(ValueError, match="resolution 7"):
        unpack_surge(pack_surge(surge, 8), 7)


@given(surges())
def test_the_header_tells_publications_apart(surge: Surge) -> None:
    marked = pack_surge(surge.as_stale(), 8)[:HEADER_BYTES]
    assert (marked == pack_surge(surge, 8)[:HEADER_BYTES]) == surge.stale
