"""What did this process last see of a ride? A guess that spares a reading: whoever decides by it commits at its version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matching.model import FINAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from matching.model import Ride

_MOST = 50_000
"""Rides; beyond it the one that was first seen longest ago is forgotten."""


class Remembered:
    """The newest version of each ride that goes on, of those that this process has committed or read."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._rides: dict[str, Ride] = {}
        self._ride_of_offer: dict[str, str] = {}

    def __len__(self) -> int:
        """How many?"""
        return len(self._rides)

    def __contains__(self, ride_id: object) -> bool:
        """Is this ride among them?"""
        return ride_id in self._rides

    def put(self, ride: Ride) -> None:
        """A ride as it was committed or read; one that is final is forgotten, an older version is passed over."""
        known = self._rides.get(ride.ride_id)
        if known is not None and known.version >= ride.version:
            return
        if ride.state in FINAL:
            self.forget(ride.ride_id)
            return
        self._rides[ride.ride_id] = ride
        for offer in ride.offers:
            self._ride_of_offer[offer.offer_id] = ride.ride_id
        if len(self._rides) > self._most:
            self.forget(next(iter(self._rides)))

    def ride(self, ride_id: str) -> Ride | None:
        """The ride, as far as is remembered."""
        return self._rides.get(ride_id)

    def ride_of_offer(self, offer_id: str) -> Ride | None:
        """The ride that an offer is for, as far as is remembered."""
        return self._rides.get(self._ride_of_offer.get(offer_id, ""))

    def forget(self, ride_id: str) -> None:
        """Others have changed it since, or it has ended."""
        known = self._rides.pop(ride_id, None)
        for offer in known.offers if known is not None else ():
            self._ride_of_offer.pop(offer.offer_id, None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a change finds its ride.

    recall : as it is remembered; None where it is not
    read : as PostgreSQL has it. Raises RIDE_NOT_FOUND, OFFER_NOT_FOUND, STORE_UNAVAILABLE
    check : may whoever asks change it? Raises NOT_YOURS
    """

    recall: Callable[[], Ride | None]
    read: Callable[[], Awaitable[Ride]]
    check: Callable[[Ride], None] = lambda _ride: None
