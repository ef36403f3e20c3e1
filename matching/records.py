"""What is a driver's record? Which share of its offers it took, of late, and how long it has been free. Pure.

An offer counts once it is over, and only if the driver saw it: taken, refused, or left until it expired. One that was withdrawn
(another driver was faster, the rider gave up, an operator stepped in) or never shown says nothing about the driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.units import MS_PER_S
from matching.model import OfferState, ReleaseReason

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from matching.model import Decision, Offer, Ride

_IMAGINED_SHOWN_MILLI = 10_000
_IMAGINED_ACCEPTED_MILLI = 9_000
"""Ten imagined offers, nine of them accepted, stand for a driver of whom little is known (our choice)."""

_GIVEN_BACK = frozenset({ReleaseReason.CANCELLED_BY_DRIVER, ReleaseReason.NO_PROGRESS})
"""Releases that are the driver's doing: not an operator's, nor the rider's, nor a telephone's that fell silent."""


@dataclass(frozen=True, slots=True)
class RecordParams:
    """How long a record remembers."""

    half_life_offers: float = 50.0
    """After so many further offers one counts half. In offers, not days: a record says as much of whoever drives an hour a week
    as of whoever drives every night, and nobody mends it by staying away (decision 26)."""

    def __post_init__(self) -> None:
        """Raises ValueError for a record that would forget at once."""
        if not self.half_life_offers > 0:
            raise ValueError("half_life_offers must be above 0")


@dataclass(frozen=True, slots=True)
class Record:
    """Offers of late, each weighing the less the more came after it. A driver on whom nothing is recorded yet has zeros.

    shown_milli : weight of the offers seen to their end, thousandths
    accepted_milli : of these, of those accepted; never more
    """

    shown_milli: int = 0
    accepted_milli: int = 0


class Answer(StrEnum):
    """What a driver made of an offer that it saw."""

    ACCEPTED = "ACCEPTED"
    NOT_TAKEN = "NOT_TAKEN"
    """Declined, or left to expire."""
    GIVEN_BACK = "GIVEN_BACK"
    """Accepted before, and then cancelled by the driver, or not driven to: the acceptance is taken off again."""


@dataclass(frozen=True, slots=True)
class Step:
    """A record's next value, as what is kept of the old one and what is added: `round(old * keep) + gain`."""

    keep: float
    shown_gain_milli: int
    accepted_gain_milli: int


def answers(before: Ride | None, decision: Decision) -> list[tuple[str, Answer]]:
    """Whose record does this change of a ride go into, and how? Driver and answer, in the order of the offers."""
    known = {offer.offer_id: offer for offer in before.offers} if before else {}
    given = [(offer.driver_id, _answer(known.get(offer.offer_id), offer)) for offer in decision.ride.offers]
    back = [(fact.driver_id, Answer.GIVEN_BACK) for fact in decision.facts if fact.release_reason in _GIVEN_BACK]
    return [(driver_id, answer) for driver_id, answer in given if answer is not None] + back


def _answer(before: Offer | None, offer: Offer) -> Answer | None:
    if before is None or before.state is not OfferState.LIVE:
        return None
    if offer.state is OfferState.ACCEPTED:
        return Answer.ACCEPTED
    over = offer.state in (OfferState.DECLINED, OfferState.EXPIRED)
    return Answer.NOT_TAKEN if over and offer.shown_at_ms else None


def step(answer: Answer, params: RecordParams) -> Step:
    """How does this answer change a record? Stores apply it without reading first."""
    if answer is Answer.GIVEN_BACK:
        return Step(1.0, 0, -1_000)
    keep = 0.5 ** (1.0 / params.half_life_offers)
    return Step(keep, 1_000, 1_000 if answer is Answer.ACCEPTED else 0)


def joined(first: Step, second: Step) -> Step:
    """Both, the one after the other, but for rounding in between."""
    return Step(
        first.keep * second.keep,
        round(first.shown_gain_milli * second.keep) + second.shown_gain_milli,
        round(first.accepted_gain_milli * second.keep) + second.accepted_gain_milli,
    )


def after(record: Record, answer: Answer, params: RecordParams) -> Record:
    """The record with one more answer."""
    change = step(answer, params)
    return Record(
        round(record.shown_milli * change.keep) + change.shown_gain_milli,
        max(0, round(record.accepted_milli * change.keep) + change.accepted_gain_milli),
    )


def acceptance_milli(shown_milli: Ints, accepted_milli: Ints) -> Ints:
    """Which share of their offers did these drivers accept, of late? int64[n], int64[n] -> int64[n], thousandths up to 1,000."""
    shown = np.maximum(shown_milli, accepted_milli) + _IMAGINED_SHOWN_MILLI
    return np.asarray(1_000 * (accepted_milli + _IMAGINED_ACCEPTED_MILLI) // shown, dtype=np.int64)


def idle_s(free_since_ms: Ints, free: Bools, now_ms: int) -> Floats:
    """How long have these drivers been free? int64[n], bool[n] -> float64[n]; 0 for whoever is not, and never negative."""
    waited_s = (now_ms - free_since_ms) / MS_PER_S
    return np.where(free, np.maximum(waited_s, 0.0), 0.0)
