"""Which drivers report to this worker, and what does it remember of each? Rows of one table, so that flushes work on columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from location.model import TRACK, taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Ints
    from location.model import Records

_FIRST_ROWS: Final = 1_024


class Roster:
    """The drivers of one city that reported to this worker lately.

    A row stays a driver's own until `forget_before` gives the rows out anew; `generation` then is another.

    driver_ids : by row
    tracks : TRACK[at least n]
    report_interval_ms : int64[at least n], how often each was last asked to report; 0 where nothing was said
    """

    def __init__(self) -> None:
        self.generation = 0
        self.driver_ids: list[str] = []
        self.tracks: Records = np.zeros(_FIRST_ROWS, dtype=TRACK)
        self.report_interval_ms: Ints = np.zeros(_FIRST_ROWS, dtype=np.int64)
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.driver_ids)

    def rows_of(self, driver_ids: Sequence[str]) -> Ints:
        """Each driver's row, a new one where it has none: int64[n]."""
        return np.fromiter((self._row_of(driver_id) for driver_id in driver_ids), dtype=np.int64, count=len(driver_ids))

    def forget_before(self, silent_at_ms: int) -> int:
        """Forgets who was last believed at or before this time, once they are a quarter of all; how many were they?

        All rows are given out anew then, and looked up again, so it is not done for a few.
        """
        last_ms = self.tracks["believed"]["received_at_ms"][: len(self)]
        kept = np.flatnonzero(last_ms > silent_at_ms)
        forgotten = len(self) - len(kept)
        if 4 * forgotten < len(self) or not forgotten:
            return 0
        self.generation += 1
        self.driver_ids = [self.driver_ids[row] for row in kept.tolist()]
        self._rows = {driver_id: row for row, driver_id in enumerate(self.driver_ids)}
        self.tracks = np.concatenate([taken(self.tracks, kept), np.zeros(_FIRST_ROWS, dtype=TRACK)])
        self.report_interval_ms = np.concatenate([self.report_interval_ms[kept], np.zeros(_FIRST_ROWS, dtype=np.int64)])
        return forgotten

    def _row_of(self, driver_id: str) -> int:
        row = self._rows.get(driver_id)
        if row is None:
            row = self._rows[driver_id] = len(self.driver_ids)
            self.driver_ids.append(driver_id)
            if row == len(self.tracks):
                self.tracks = np.concatenate([self.tracks, np.zeros_like(self.tracks)])
                self.report_interval_ms = np.concatenate([self.report_interval_ms, np.zeros_like(self.report_interval_ms)])
        return row


class Reporters:
    """The drivers that one sender reports for, by the sender's own numbers for them."""

    def __init__(self, driver_ids: Sequence[str] = ()) -> None:
        self.driver_ids = list(driver_ids)
        self._generation = -1
        self._rows: Ints = np.zeros(0, dtype=np.int64)

    def rows_in(self, roster: Roster) -> Ints:
        """Each one's row in the roster: int64[n]. Looked up once, and again where the roster gave its rows out anew."""
        if self._generation != roster.generation:
            self._generation = roster.generation
            self._rows = roster.rows_of(self.driver_ids)
        elif len(self._rows) < len(self.driver_ids):
            self._rows = np.concatenate([self._rows, roster.rows_of(self.driver_ids[len(self._rows) :])])
        return self._rows
