"""What the shells of location need of a store, for one city."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Ints
    from location.model import Changes, DriverState, IndexedDrivers, Occupancy, Records, StateEpoch


class LocationStore(Protocol):
    """The index of one city. Every call can raise STORE_UNAVAILABLE."""

    buckets: int

    async def open_session(self, at_least: int) -> int:
        """A session id of at least this, newer than all given out before in the city."""

    async def last_session(self) -> int:
        """The newest session id given out; 0 where none is known."""

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
        """Takes in POSITION[n] of distinct drivers; int64[n]: -1 where not newer than what was known, else the driver's
        availability, 0 where matching has said nothing. Repeating a write is harmless."""

    async def write_states(self, states: Sequence[DriverState]) -> int:
        """Takes in what matching says; how many were newer than what was known?"""

    async def state_epoch(self) -> StateEpoch:
        """The present epoch; makes one where there is none."""

    async def complete_epoch(self, epoch: str) -> bool:
        """Notes that all states have been told; False where the epoch is another by now."""

    async def read_near(self, place: Place, reach_m: float, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of these cells that are within the reach of the place, and perhaps a few beyond; each seen once."""

    async def read_near_all_but(self, place: Place, reach_m: float, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The same, of all occupied cells except these."""

    async def occupancy(self) -> Occupancy:
        """How many drivers the index holds in each occupied cell."""

    async def read_changes(self, bucket: int, mark: str) -> Changes:
        """Some of those drivers of a bucket that changed after a mark (`""`: of all that have a position and are not silent).

        Who reads on from mark to mark until the reading is whole has seen everyone as of then: who changes meanwhile comes again.
        """

    async def read_positions(self, driver_ids: Sequence[str]) -> list[bytes | None]:
        """The POSITION record of each driver, fresh or not."""

    async def erase(self, driver_ids: Sequence[str]) -> int:
        """Forgets all that is kept of these drivers; how many were known?"""

    async def sweep(self, silent_at_ms: int, impossible_at_ms: int, forgotten_at_ms: int, limit: int) -> tuple[int, int]:
        """Takes out of the index who was last heard of at or before the first time, or at or after the second, and forgets
        positions received at or before the third; at most `limit` a bucket. Returns how many of either."""
