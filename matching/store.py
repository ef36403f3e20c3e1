"""What the dispatcher needs of the truth (PostgreSQL) and of the speed (Valkey)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hexhail.kernel.ids import CityId, DriverId, OfferId, RideId
from matching.records import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from hexhail.kernel.geo import Place
    from matching.candidates import Consideration
    from matching.explanation import Bound
    from matching.model import Decision, Offer, Ride, RideState
    from matching.progress import Check, Watch
    from matching.reconciling import HeldClaim
    from matching.relaying import LoggedEvent, Page, Telling
    from matching.window import WindowAssigned

DriverKey = tuple[CityId, DriverId]


@dataclass(frozen=True, slots=True)
class RequestKey:
    """One request of one caller, and a digest of what it asked."""

    city_id: CityId
    actor: str
    request_id: str
    body_digest: bytes

    @property
    def columns(self) -> tuple[str, str, str, bytes]:
        """As a row begins."""
        return self.city_id, self.actor, self.request_id, self.body_digest


@dataclass(frozen=True, slots=True)
class Driver:
    """What PostgreSQL knows of a driver."""

    city_id: CityId
    driver_id: DriverId
    version: int
    capabilities: tuple[str, ...]
    rating_milli: int
    online: bool
    suspended: bool
    updated_at_ms: int
    record: Record = field(default_factory=Record)
    free_since_ms: int = 0
    """When the driver went online, or was released last; holds while it is online and on no ride."""
    ride_id: str = ""
    """Of the active assignment."""
    has_live_offer: bool = False

    @property
    def free(self) -> bool:
        """Could it take a ride?"""
        return self.online and not self.suspended and not self.ride_id

    @property
    def key(self) -> DriverKey:
        """City and id."""
        return self.city_id, self.driver_id


@dataclass(frozen=True, slots=True)
class Stats:
    """How a city stands: its drivers who are online, and its rides that are not over, by state.

    drivers_available : of those online, not suspended and on no ride
    waited_mean_s, waited_max_s : since they were requested, of rides in SEARCHING and OFFERED; 0 where there are none
    """

    drivers_online: int
    drivers_available: int
    rides: Mapping[RideState, int]
    waited_mean_s: float
    waited_max_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """One conditional change of a ride, with all that must be true together with it."""

    before: Ride | None
    decision: Decision
    actor: str
    request: RequestKey | None = None
    answer: bytes = b""
    """What the caller is told, kept for a repeat of `request`."""
    consideration: Consideration | None = None
    restores: bool = False
    """The ride's driver is bound to it again: a repair."""
    answered_too: tuple[tuple[RequestKey, bytes], ...] = ()
    """Other requests that the same change answers, and what they are told."""
    leased_until_ms: int = 0
    """Until then only this worker acts on the ride, which is due at once; 0 where nobody has it in hand."""

    def answered(self) -> list[tuple[RequestKey, bytes]]:
        """The requests that the change answers, each with what it is told."""
        return [*([(self.request, self.answer)] if self.request is not None else []), *self.answered_too]


class Conflict(Exception):
    """Somebody else changed the same thing first: read again, decide again."""


class RequestRepeated(Exception):
    """The same request is being answered elsewhere, or was: its first answer stands."""


class Rides(Protocol):
    """Rides, offers and assignments, as PostgreSQL holds them. Raises STORE_UNAVAILABLE when it does not answer."""

    async def ride(self, ride_id: str) -> Ride:
        """The ride as it is. Raises RIDE_NOT_FOUND."""

    async def versions(self, ride_ids: Sequence[str]) -> dict[str, int]:
        """At which version is each of these rides?"""

    async def ride_of_offer(self, offer_id: str) -> Ride:
        """The ride that an offer is for. Raises OFFER_NOT_FOUND."""

    async def rides_of_rider(self, city_id: CityId, rider_id: str, before: str, limit: int) -> list[Ride]:
        """A rider's rides whose id sorts before `before` (empty: all), newest first."""

    async def commit(self, change: Change) -> list[Driver]:
        """Makes a decision true, or none of it; gives the drivers whose state it changed.

        Raises Conflict, RequestRepeated, RIDER_BUSY, QUOTE_USED, DRIVER_BUSY, DRIVER_OFFLINE, DRIVER_SUSPENDED.
        """

    async def keep_leased(self, held: Sequence[Ride], until_ms: int) -> None:
        """Leases for longer those of these rides that have not changed since."""

    async def lease_due(self, now_ms: int, lease_ms: int, limit: int, ride_id: str | None = None) -> list[Ride]:
        """Rides (or this one) whose deadline has come and that no other worker has in hand; they are in ours for `lease_ms`."""

    async def open_pickups(self, city_id: CityId) -> list[Place]:
        """Where riders wait whom nobody has accepted yet."""

    async def live_offers(self, city_id: CityId, driver_id: str, and_these: Sequence[str]) -> list[tuple[Ride, Offer]]:
        """A driver's live offers, and those of `and_these` in whatever state."""

    async def all_live_offers(self, city_id: CityId) -> list[tuple[DriverId, OfferId, RideId]]:
        """Every live offer of a city."""

    async def first_answer(self, request: RequestKey, now_ms: int) -> bytes | None:
        """What this request was answered in the last 24 h; None for a new one. Raises REQUEST_ID_REUSED for another body."""

    async def keep_answer(self, request: RequestKey, answer: bytes, now_ms: int) -> None:
        """What a request is told that changes nothing, for its repeats. Raises RequestRepeated."""


class Checks(Protocol):
    """What is remembered of drivers on a ride, from check to check. Raises STORE_UNAVAILABLE when it does not answer."""

    async def lease_checks(self, city_id: CityId, now_ms: int, period_ms: int, limit: int) -> list[Check]:
        """Rides whose driver nobody has looked at for a period, nor accepted within it; they count as looked at from now on."""

    async def keep_watches(self, watches: Sequence[tuple[Check, Watch]]) -> None:
        """What is remembered until the next check. Of assignments that have ended meanwhile, nothing is kept."""


class Drivers(Protocol):
    """Drivers, as PostgreSQL holds them. Raises STORE_UNAVAILABLE when it does not answer."""

    async def driver(self, city_id: CityId, driver_id: str) -> Driver:
        """Raises DRIVER_NOT_FOUND."""

    async def drivers(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, Driver]:
        """Those of them that are known."""

    async def upsert_driver(
        self,
        city_id: CityId,
        driver_id: str,
        capabilities: Sequence[str],
        rating_milli: int,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """Makes a driver known, or changes what is known. Raises RequestRepeated."""

    async def set_online(
        self,
        city_id: CityId,
        driver_id: str,
        online: bool,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """Raises DRIVER_NOT_FOUND, DRIVER_SUSPENDED, RequestRepeated."""

    async def set_suspended(
        self,
        city_id: CityId,
        driver_id: str,
        suspended: bool,
        reason: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """No more offers for a driver, or offers again. Raises DRIVER_NOT_FOUND, RequestRepeated."""

    async def stats(self, city_id: CityId, now_ms: int) -> Stats:
        """How the city stands."""

    def drivers_to_tell(self, city_id: CityId, changed_since_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that is online, on a ride, or changed since then, in pages."""

    def drivers_changed(self, city_id: CityId, from_ms: int, until_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that changed last between these times, in pages."""


class History(Protocol):
    """What happened, as envelopes of the event log. Each call raises STORE_UNAVAILABLE."""

    async def of_ride(self, ride: Ride) -> list[bytes]:
        """Of all versions of a ride as far as this one, in order; without those that are no longer kept."""

    async def of_driver(self, city_id: CityId, driver_id: str, until_ms: int) -> list[bytes]:
        """The latest of a driver until then, oldest first."""

    async def bound(self, city_id: CityId, driver_id: str, from_ms: int, until_ms: int) -> list[Bound]:
        """Which rides was a driver on at some moment of this time?"""


class Claims(Protocol):
    """Short locks that spare work: correctness never rests on them."""

    async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        """Which of these drivers are ours now?"""

    async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
        """Gives back those that are still ours."""

    async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
        """Is this ride ours for the instant of accepting?"""

    async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
        """Gives it back if it is still ours."""


class Sessions(Protocol):
    """Which drivers have a phone that listens."""

    async def with_session(self, city_id: CityId, driver_ids: Sequence[str]) -> set[str]:
        """Those of them that do, on whichever worker."""


class Windows(Protocol):
    """Rides that wait for a window, and the log of windows. Raises STORE_UNAVAILABLE when PostgreSQL does not answer."""

    async def searching(self, city_id: CityId, limit: int) -> list[Ride]:
        """Rides that nobody is asked about now, those that were requested first."""

    async def log(self, event: WindowAssigned) -> int:
        """Keeps what a window was decided by; its number."""


class Leases(Protocol):
    """Duties that one worker should have at a time."""

    async def take(self, duty: str, now_ms: int, ttl_ms: int) -> int | None:
        """Takes the duty, or keeps it, for so long; its term, or None where another worker has it. Raises STORE_UNAVAILABLE."""

    async def give_up(self, duty: str) -> None:
        """Lets another worker have it at once. Raises STORE_UNAVAILABLE."""


class EventLog(Protocol):
    """The log of events, and how far it has been told. Raises STORE_UNAVAILABLE when PostgreSQL does not answer."""

    async def progress(self, city_id: CityId) -> tuple[Telling, str]:
        """How far the log has been told, and a snapshot of now."""

    async def read(self, city_id: CityId, progress: Telling, limit: int) -> Page:
        """The next events, at most so many; a page of no round where there is nothing to tell."""

    async def record(self, city_id: CityId, term: int, progress: Telling) -> bool:
        """Keeps how far the log has been told; False where a later term has done so."""


class EventStream(Protocol):
    """The stream of a city's events. Raises STORE_UNAVAILABLE when Valkey does not answer."""

    async def append(self, known_id: str, events: Sequence[LoggedEvent]) -> str | None:
        """Writes events behind an entry that is known to be there; the last one's id, None where that entry is gone."""

    async def begin(self, epoch: str, from_at_ms: int, reason: str, after_id: str) -> str:
        """Says that an epoch begins; the entry's id, which is above `after_id`."""


class Broken(Protocol):
    """What contradicts itself in PostgreSQL. Raises STORE_UNAVAILABLE when it does not answer."""

    async def contradictory(self, city_id: CityId, limit: int) -> list[tuple[Ride, DriverId | None]]:
        """Rides that contradict their offers, their assignment or their deadline, each with the driver bound to it."""

    async def offers_to_gone(self, city_id: CityId, gone_at_ms: int) -> list[OfferId]:
        """Live offers to drivers who have been offline or suspended since then, at the latest."""

    async def cut_leases(self, city_id: CityId, now_ms: int, latest_ms: int) -> int:
        """Ends leases of rides that are due, which end later than that; how many?"""


class KeptClaims(Protocol):
    """Claims as they lie in Valkey. Raises STORE_UNAVAILABLE when it does not answer."""

    def held(self, city_id: CityId) -> AsyncIterator[list[HeldClaim]]:
        """Every claim on a driver of a city, in pages."""

    async def drop(self, city_id: CityId, claims: Sequence[HeldClaim]) -> int:
        """Takes these away, as far as they are still the same; how many?"""


class KeptSessions(Protocol):
    """Sessions as they lie in Valkey. Raises STORE_UNAVAILABLE when it does not answer."""

    async def drop_expired(self, city_id: CityId) -> int:
        """Takes away those that are over by the clock; how many?"""
