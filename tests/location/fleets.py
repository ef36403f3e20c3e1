"""Many drivers at once for tests: fixes in bulk, readable snapshots, and a store that can be made to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.errors import DomainError, Reason
from location.model import FIX
from tests.location.world import NOON_MS, packed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Any

    from location.known import Snapshot
    from location.model import Changes, Records
    from location.store import LocationStore

Spot = tuple[float, float]


def positions_at(spots: Sequence[Spot], *, sequence: int = 1, at_ms: int = NOON_MS, session: int = 1) -> Records:
    """POSITION[n]."""
    rows = np.zeros(len(spots), dtype=FIX)
    rows["session"], rows["sequence"], rows["received_at_ms"], rows["device_time_ms"] = session, sequence, at_ms, at_ms
    rows["lat"], rows["lng"] = np.array(spots, dtype=np.float64).reshape(-1, 2).T
    for name in ("heading_deg", "speed_mps", "accuracy_m"):
        rows[name] = np.nan
    return packed(rows)


async def put(store: LocationStore, spots: Mapping[str, Spot], **rest: int) -> None:
    """Writes where drivers are."""
    await store.write_fixes(list(spots), positions_at(list(spots.values()), **rest))


def seen_in(snapshot: Snapshot) -> dict[str, tuple[int, int, int, int]]:
    """Driver -> latitude, longitude (both times 1e7), time of receipt, availability; asserts what every snapshot keeps."""
    assert (np.diff(snapshot.numbers) > 0).all()
    names = [name.decode() for name in snapshot.driver_ids.tolist()]
    assert len(set(names)) == len(names) == len(snapshot.numbers) == len(snapshot.changes) == len(snapshot.records)
    columns = [snapshot.records["position"][name].tolist() for name in ("lat_e7", "lng_e7", "received_at_ms")]
    return dict(zip(names, zip(*columns, snapshot.records["state"]["availability"].tolist(), strict=True), strict=True))


class FaultyStore:
    """The store, except that something can happen before each reading of changes."""

    def __init__(self, store: LocationStore) -> None:
        self._store = store
        self.before_reading: Callable[[int], Awaitable[None]] | None = None
        self.readings = 0
        self.away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_changes(self, bucket: int, mark: str) -> Changes:
        self.readings += 1
        if self.before_reading is not None:
            await self.before_reading(self.readings)
        if self.away:
            raise DomainError(Reason.STORE_UNAVAILABLE, "away", store="valkey")
        return await self._store.read_changes(bucket, mark)
