"""What the shells of location need of a store, for one city."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hexhail.kernel.units import Bools
    from location.model import DriverState, IndexedDrivers, Occupancy, Records, StateEpoch


class LocationStore(Protocol):
    """The index of one city. Every call can raise STORE_UNAVAILABLE."""

    async def open_session(self, at_least: int) -> int:
        """A session id of at least this, newer than all given out before in the city."""

    async def last_session(self) -> int:
        """The newest session id given out; 0 where none is known."""

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Bools:
        """Takes in POSITION[n] of distinct drivers; bool[n]: was it newer than what was known? Repeating a write is harmless."""

    async def write_states(self, states: Sequence[DriverState]) -> int:
        """Takes in what matching says; how many were newer than what was known?"""

    async def state_epoch(self) -> StateEpoch:
        """The present epoch; makes one where there is none."""

    async def complete_epoch(self, epoch: str) -> bool:
        """Notes that all states have been told; False where the epoch is another by now."""

    async def read_cells(self, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of these cells, each seen once."""

    async def read_all_but(self, cells: Sequence[int]) -> tuple[IndexedDrivers, StateEpoch]:
        """The indexed drivers of all occupied cells except these, each seen once."""

    async def occupancy(self) -> Occupancy:
        """How many drivers the index holds in each occupied cell."""

    def read_everyone(self) -> AsyncIterator[IndexedDrivers]:
        """All indexed drivers, some at a time so that nobody waits long: one that moves meanwhile may be missed or come twice."""

    async def read_positions(self, driver_ids: Sequence[str]) -> list[bytes | None]:
        """The POSITION record of each driver, fresh or not."""

    async def sweep(self, silent_at_ms: int, impossible_at_ms: int, forgotten_at_ms: int, limit: int) -> tuple[int, int]:
        """Takes out of the index who was last heard of at or before the first time, or at or after the second, and forgets
        positions received at or before the third; at most `limit` a bucket. Returns how many of either."""
