"""What were clients told, and what does PostgreSQL hold at the end? The two sides of a history that is checked. Pure.

Times are Unix milliseconds of one clock that clients and services share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FINAL = frozenset({"COMPLETED", "CANCELLED_BY_RIDER", "CANCELLED_BY_SYSTEM", "NO_SHOW", "EXPIRED", "ENDED_BY_OPERATOR"})
ASSIGNED = frozenset({"ACCEPTED", "ARRIVED", "IN_PROGRESS"})
OK, UNKNOWN = "OK", "UNKNOWN"
"""Outcomes of a call beside the reasons of refusals: done; or nobody knows, for the answer never came."""


class Call(StrEnum):
    """What clients ask for."""

    REQUEST = "REQUEST"
    CANCEL = "CANCEL"
    ACCEPT = "ACCEPT"
    DECLINE = "DECLINE"
    ACK = "ACK"
    ARRIVE = "ARRIVE"
    START = "START"
    COMPLETE = "COMPLETE"
    GIVE_BACK = "GIVE_BACK"
    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    END = "END"
    REASSIGN = "REASSIGN"
    SUSPEND = "SUSPEND"
    LIFT = "LIFT"


@dataclass(frozen=True, slots=True)
class Told:
    """A client was told how a ride stands. `driver_id` is empty where no driver was named."""

    to: str
    ride_id: str
    version: int
    state: str
    driver_id: str
    accepted_at_ms: int
    heard_ms: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of a client, and how it ended: OK, UNKNOWN, or the reason of a refusal."""

    who: str
    call: Call
    outcome: str
    asked_ms: int
    heard_ms: int
    ride_id: str = ""
    offer_id: str = ""


@dataclass(frozen=True, slots=True)
class OfferTold:
    """A driver's phone was told how an offer stands."""

    driver_id: str
    offer_id: str
    ride_id: str
    state: str
    heard_ms: int


@dataclass(slots=True)
class History:
    """All that clients were told, in the order in which they heard it."""

    told: list[Told] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    offers: list[OfferTold] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    """Ride -> rider who watches it and has not been told of its end."""
    showing: dict[str, str] = field(default_factory=dict)
    """Offer that is live on a phone which still watches -> its driver."""


@dataclass(frozen=True, slots=True)
class RideRow:
    """A ride in PostgreSQL. `driver_id` is empty where none is bound, or was at the end."""

    ride_id: str
    rider_id: str
    state: str
    version: int
    next_deadline_ms: int | None
    driver_id: str


@dataclass(frozen=True, slots=True)
class OfferRow:
    """An offer in PostgreSQL."""

    offer_id: str
    ride_id: str
    driver_id: str
    state: str


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """A driver bound to a ride in PostgreSQL; None while it is."""

    ride_id: str
    driver_id: str
    accepted_at_ms: int
    released_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Logged:
    """One event of the log.

    driver_id : of the assignment that began or ended, of the offer that was shown or declined, of the driver itself
    offers : (offer, driver) of those made, offer alone where only its id is told
    state : of the ride with this version, where the event says it
    expires_ms : when the offers made are over
    version_events : how many events this version has; 0 where that is not said
    """

    aggregate_id: str
    version: int
    index: int
    at_ms: int
    kind: str
    driver_id: str = ""
    offers: tuple[tuple[str, str], ...] = ()
    state: str = ""
    expires_ms: int = 0
    version_events: int = 0

    @property
    def gives_back(self) -> bool:
        """Was the ride taken from its driver, to be searched again?"""
        return self.kind == "ASSIGNMENT_ENDED" and self.state == "SEARCHING"


@dataclass(frozen=True, slots=True)
class Ending:
    """What PostgreSQL holds when everything has settled."""

    now_ms: int
    rides: tuple[RideRow, ...]
    offers: tuple[OfferRow, ...]
    assignments: tuple[AssignmentRow, ...]
    log: tuple[Logged, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """How a ride stood from one change on, as its events tell it; None where they do not tell.

    Who was its driver stays told where it has ended with one.
    """

    version: int
    at_ms: int
    state: str | None
    driver_id: str


@dataclass(slots=True)
class Course:
    """A ride as its events tell it.

    versions : version -> how the ride stood from it on; of a log that tells one version twice, the later word
    made : offer -> (driver, when it was made)
    closed_ms : offer -> when it could not be accepted any more
    declined : (driver, when) of each decline, and of each ride given back or taken away
    said, held : version -> how many events it has, by their own word and as the log holds them
    """

    ride_id: str
    versions: dict[int, Version] = field(default_factory=dict)
    made: dict[str, tuple[str, int]] = field(default_factory=dict)
    closed_ms: dict[str, int] = field(default_factory=dict)
    declined: list[tuple[str, int]] = field(default_factory=list)
    said: dict[int, int] = field(default_factory=dict)
    held: Counter[int] = field(default_factory=Counter)
    _driver_id: str = ""

    def add(self, event: Logged) -> None:
        """The next event."""
        if event.kind == "OFFERS_MADE":
            self.made.update({offer_id: (driver_id, event.at_ms) for offer_id, driver_id in event.offers})
        elif event.kind in _CLOSES_OFFERS:
            self._close([offer_id for offer_id, _ in event.offers], event.at_ms)
        elif event.kind == "ASSIGNMENT_BEGAN":
            self._driver_id = event.driver_id
        elif event.gives_back:
            self._driver_id = ""
        if event.kind == "OFFER_DECLINED" or event.gives_back:
            self.declined.append((event.driver_id, event.at_ms))
        if event.state in ASSIGNED or event.state in FINAL:
            self._close([offer_id for offer_id in self.made if offer_id not in self.closed_ms], event.at_ms)
        self.versions[event.version] = Version(event.version, event.at_ms, event.state or None, self._driver_id)
        self.said[event.version] = event.version_events
        self.held[event.version] += 1

    def _close(self, offer_ids: Iterable[str], at_ms: int) -> None:
        for offer_id in offer_ids:
            self.closed_ms.setdefault(offer_id, at_ms)


_CLOSES_OFFERS = frozenset({"OFFER_DECLINED", "OFFER_WITHDRAWN", "OFFERS_EXPIRED"})


def courses(log: Iterable[Logged]) -> dict[str, Course]:
    """Each ride as the log tells it; drivers' own events are passed over."""
    found: dict[str, Course] = {}
    for event in in_order(log):
        if not event.kind.startswith("DRIVER_") or event.kind == "DRIVER_ARRIVED":
            found.setdefault(event.aggregate_id, Course(event.aggregate_id)).add(event)
    return found


def in_order(log: Iterable[Logged]) -> list[Logged]:
    """The events by what they are about and its version, as consumers read them."""
    return sorted(log, key=lambda event: (event.aggregate_id, event.version, event.at_ms, event.index))


def presence(log: Iterable[Logged]) -> dict[str, list[tuple[int, bool]]]:
    """Driver -> (when, whether it went online), in order."""
    found: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for event in in_order(log):
        if event.kind in {"DRIVER_WENT_ONLINE", "DRIVER_WENT_OFFLINE"}:
            found[event.aggregate_id].append((event.at_ms, event.kind == "DRIVER_WENT_ONLINE"))
    return found


def deadlines_late_ms(log: Iterable[Logged]) -> list[int]:
    """How late did offers expire that nobody answered, after their time was over? One entry for each time, in milliseconds."""
    due_ms: dict[str, int] = {}
    found: list[int] = []
    for event in in_order(log):
        if event.kind == "OFFERS_MADE":
            due_ms[event.aggregate_id] = event.expires_ms
        elif event.kind == "OFFERS_EXPIRED" and event.aggregate_id in due_ms:
            found.append(event.at_ms - due_ms[event.aggregate_id])
    return found
