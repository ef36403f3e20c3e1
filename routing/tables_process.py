"""The process that makes tables for another: `python -m routing.tables_process FOLDER`, a graph's columns on its standard input.

It imports as little as it can, for half of a small graph's time would go into that.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Final

import numpy as np

from routing.graph import RoadGraph
from routing.tables import load_tables

COLUMNS: Final = ("lat", "lng", "first_edge", "head", "length_m", "time_s")
UNFIT: Final = 3
"""The exit code where the graph has no tables: too large, or ways too long."""


def packed(graph: RoadGraph) -> bytes:
    """A graph as this process reads it."""
    columns = io.BytesIO()
    np.savez(columns, **{name: getattr(graph, name) for name in COLUMNS})
    return columns.getvalue()


def _main() -> int:
    columns = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    try:
        load_tables(RoadGraph(**{name: columns[name] for name in COLUMNS}), Path(sys.argv[1]))
    except ValueError as error:
        sys.stderr.write(str(error))
        return UNFIT
    return 0


if __name__ == "__main__":
    sys.exit(_main())
