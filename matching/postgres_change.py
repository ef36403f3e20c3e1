"""A change of a ride as one statement and its values: ride, offers, events, answers and the drivers it touches, or nothing of it.

One round trip and no transaction about it. What may have changed while the statement waited for a row, it must not take from its
own snapshot: so a ride is compared by its version, and a driver who is asked must still be at the version of the snapshot that
says who is on a ride, since whatever binds a driver, frees it or takes it offline makes a new one. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from hexhail.kernel.units import MS_PER_S
from matching import postgres_statements as sql
from matching.model import FactKind, OfferState
from matching.records import Step, answers, joined, step
from matching.rows import ride_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matching.model import Offer, Ride
    from matching.records import RecordParams
    from matching.store import Change

REPEATS_KEPT_MS = 24 * 3600 * MS_PER_S


class Refusal(StrEnum):
    """Why a whole change is refused; the first that holds is named."""

    REPEATED = "REPEATED"
    """A request of it is answered already."""
    CHANGED = "CHANGED"
    """The ride is no longer at the version that was decided upon."""
    TAKEN = "TAKEN"
    """A driver to be asked is on a ride, offline or suspended, or has just changed."""
    GONE = "GONE"
    """The driver who accepts is offline or suspended."""


class Touch(StrEnum):
    """What a change makes of a driver. All but an answer is a new version of the driver."""

    BOUND = "BOUND"
    """It has the ride now, and must be online for that."""
    RESTORED = "RESTORED"
    """It has the ride again, wherever it is: a repair."""
    FREED = "FREED"
    """It has the ride no more."""
    ANSWERED = "ANSWERED"
    """It only has another record."""


_UNANSWERED = Step(1.0, 0, 0)
_REQUEST_TYPES = ("text", "text", "text", "bytea", "bytea", "bigint")
_OFFER_TYPES = ("text", "text", "integer", "text", "bigint", "bigint", "bigint", "integer", "integer")
_EVENT_TYPES = ("integer", "text", "bytea")
_TOUCH_TYPES = ("text", "text", "bigint", "text", "double precision", "bigint", "bigint")

NOT_ASKED_IN_VAIN = """
free AS (
    SELECT d.driver_id, d.version FROM matching.drivers d
     WHERE d.city_id = {city} AND d.driver_id = ANY ({asked}) AND d.online AND NOT d.suspended
       AND (SELECT count(*) FROM offered) >= 0
       FOR SHARE),
asked_in_vain AS (
    SELECT cardinality({asked}) > count(*) AS so
      FROM free JOIN matching.drivers seen ON seen.city_id = {city} AND seen.driver_id = free.driver_id
     WHERE seen.version = free.version
       AND NOT EXISTS (SELECT FROM matching.assignments a
                        WHERE a.city_id = {city} AND a.driver_id = free.driver_id AND a.released_at_ms IS NULL))
"""
"""Whoever goes offline or is suspended now waits for the offers, and then finds them: none slips past into nobody's hands. The
offers come first: whoever has one of another ride is refused there, and whoever is accepting it is waited for, and seen here."""

_TOUCHED = """
released AS (
    UPDATE matching.assignments a SET released_at_ms = {at_ms}, release_reason = NULLIF(t.reason, '')
      FROM unnest({touches}) AS t (driver_id, kind, accepted_at_ms, reason, keep, shown, accepted)
     WHERE t.kind = 'FREED' AND EXISTS (SELECT FROM changed)
       AND a.city_id = {city} AND a.driver_id = t.driver_id AND a.ride_id = {ride_id} AND a.released_at_ms IS NULL
    RETURNING a.driver_id),
bound AS (
    INSERT INTO matching.assignments (city_id, driver_id, ride_id, accepted_at_ms)
    SELECT {city}, t.driver_id, {ride_id}, t.accepted_at_ms
      FROM unnest({touches}) AS t (driver_id, kind, accepted_at_ms, reason, keep, shown, accepted)
     WHERE t.kind IN ('BOUND', 'RESTORED') AND EXISTS (SELECT FROM changed)
       AND (SELECT count(*) FROM released) >= 0
    RETURNING driver_id),
touched AS (
    UPDATE matching.drivers d
       SET version = CASE t.kind WHEN 'ANSWERED' THEN d.version ELSE {next_version} END,
           updated_at_ms = CASE t.kind WHEN 'ANSWERED' THEN d.updated_at_ms ELSE {at_ms} END,
           free_since_ms = CASE WHEN t.kind IN ('FREED', 'RESTORED') THEN {at_ms} ELSE d.free_since_ms END,
           shown_milli = round(d.shown_milli * t.keep)::bigint + t.shown,
           accepted_milli = GREATEST(0, round(d.accepted_milli * t.keep)::bigint + t.accepted)
      FROM unnest({touches}) AS t (driver_id, kind, accepted_at_ms, reason, keep, shown, accepted)
     WHERE d.city_id = {city} AND d.driver_id = t.driver_id AND EXISTS (SELECT FROM changed)
       AND (t.kind <> 'BOUND' OR (d.online AND NOT d.suspended))
       AND (SELECT count(*) FROM bound) >= 0
    RETURNING d.*, t.kind)
"""
"""In this order: a repair may take the ride from one driver and give it back to another, and it may have one at a time."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What PostgreSQL is asked.

    Its rows are one for each driver who has a new version, or one without a driver: `kind` is a `Touch`, and `was_bound` says
    that the driver has this ride now, or had it until now.
    """

    sql: str
    values: tuple[object, ...]


def statement_of(change: Change, events: Sequence[tuple[str, bytes]], records: RecordParams) -> Statement:
    """The change as a whole. It fails by casting a word to a boolean, which undoes everything and says why: `refusal_of`."""
    ride, at_ms = change.decision.ride, change.decision.ride.updated_at_ms
    changed = _changed_offers(change)
    asked = _asked(change, changed)
    touches = _touches(change, records)
    if change.before is None:
        changing, first = sql.INSERT_RIDE, _insert_values(ride, change)
    else:
        changing, first = sql.UPDATE_RIDE, _update_values(change.before, ride, change)
    values = (
        *first,
        *(ride.city_id, ride.ride_id, ride.version, at_ms, at_ms - REPEATS_KEPT_MS),
        *_columns([(*request.columns, answer, at_ms) for request, answer in change.answered()], len(_REQUEST_TYPES)),
        *_columns([_offer_values(offer) for offer in changed], len(_OFFER_TYPES)),
        *_columns([(index, kind, envelope) for index, (kind, envelope) in enumerate(events)], len(_EVENT_TYPES)),
        *((asked,) if asked else ()),
        *(_columns(touches, len(_TOUCH_TYPES)) if touches else ()),
    )
    return Statement(_whole_change(changing, len(first), NOT_ASKED_IN_VAIN if asked else "", bool(touches)), values)


def refusal_of(message: str) -> Refusal | None:
    """Which refusal does PostgreSQL's message name, if any?"""
    return next((refusal for refusal in Refusal if re.search(rf"\b{refusal}\b", message)), None)


def _changed_offers(change: Change) -> list[Offer]:
    """By driver, so that two rides with the same drivers wait for each other in the same order and never in a circle."""
    known = set(change.before.offers) if change.before else set()
    return sorted((offer for offer in change.decision.ride.offers if offer not in known), key=lambda offer: offer.driver_id)


def _asked(change: Change, changed: Sequence[Offer]) -> list[str]:
    """Drivers whom the change offers the ride."""
    known = {offer.offer_id for offer in change.before.offers} if change.before else set()
    return [offer.driver_id for offer in changed if offer.state is OfferState.LIVE and offer.offer_id not in known]


def _touches(change: Change, records: RecordParams) -> list[tuple[object, ...]]:
    """The rows of `_TOUCHED`, by driver, each driver once."""
    ride, at_ms = change.decision.ride, change.decision.ride.updated_at_ms
    steps: dict[str, Step] = {}
    for driver_id, answer in answers(change.before, change.decision):
        steps[driver_id] = joined(steps.get(driver_id, _UNANSWERED), step(answer, records))
    kinds: dict[str, tuple[Touch, int, str]] = dict.fromkeys(steps, (Touch.ANSWERED, 0, ""))
    for fact in change.decision.facts:
        if fact.kind is FactKind.ASSIGNMENT_ENDED:
            reason = fact.release_reason.value if fact.release_reason else ""
            kinds[fact.driver_id] = (Touch.FREED, 0, reason)
        elif fact.kind is FactKind.ASSIGNMENT_BEGAN:
            kinds[fact.driver_id] = (Touch.BOUND, at_ms, "")
    if change.restores and ride.assignment is not None:
        kinds[ride.assignment.driver_id] = (Touch.RESTORED, ride.assignment.accepted_at_ms, "")
    rows = list[tuple[object, ...]]()
    for driver_id, (kind, accepted_at_ms, reason) in sorted(kinds.items()):
        by = steps.get(driver_id, _UNANSWERED)
        rows.append((driver_id, kind.value, accepted_at_ms, reason, by.keep, by.shown_gain_milli, by.accepted_gain_milli))
    return rows


@lru_cache
def _whole_change(changing: str, values: int, asking: str, touches: bool) -> str:
    """The statement. Behind the values of the one that is `changing` the ride come city, ride, version and time of the change;
    from when on an answer is kept; then, as arrays, the columns of the requests answered, of the offers and of the events; the
    drivers asked; the touches.
    """
    numbers = iter(range(values + 1, 100))

    def array(types: Sequence[str]) -> str:
        return ", ".join(f"${next(numbers)}::{kind}[]" for kind in types)

    city, ride_id, version, at_ms = (f"${next(numbers)}::{kind}" for kind in ("text", "text", "bigint", "bigint"))
    kept_from_ms = f"${next(numbers)}"
    requests, offers, events = array(_REQUEST_TYPES), array(_OFFER_TYPES), array(_EVENT_TYPES)
    parts = list[str]()
    refusals = [
        (f"(SELECT count(*) FROM asked) < cardinality({requests.partition(', ')[0]})", Refusal.REPEATED),  # noqa: S608 - constants
        ("NOT EXISTS (SELECT FROM changed)", Refusal.CHANGED),
    ]
    seen, rows = "NULL::text AS driver_id", ""
    if asking:
        parts.append(asking.format(city=city, asked=array(("text",))))
        refusals.append(("(SELECT so FROM asked_in_vain)", Refusal.TAKEN))
    if touches:
        columns = array(_TOUCH_TYPES)
        parts.append(_TOUCHED.format(city=city, ride_id=ride_id, at_ms=at_ms, touches=columns, next_version=sql.NEXT_VERSION))
        refusals.append(("EXISTS (SELECT driver_id FROM bound EXCEPT SELECT driver_id FROM touched)", Refusal.GONE))
        seen = """touched.*,
       touched.driver_id IN (SELECT driver_id FROM bound UNION ALL SELECT driver_id FROM released) AS was_bound"""
        rows = " LEFT JOIN touched ON touched.kind <> 'ANSWERED'"
    return f"""
WITH changed AS ({changing} RETURNING 1),
asked AS (
    INSERT INTO matching.requests AS r (city_id, actor, request_id, body_digest, answer, answered_at_ms)
    SELECT q.* FROM unnest({requests}) AS q
    ON CONFLICT (city_id, actor, request_id) DO UPDATE
       SET body_digest = EXCLUDED.body_digest, answer = EXCLUDED.answer, answered_at_ms = EXCLUDED.answered_at_ms
     WHERE r.answered_at_ms <= {kept_from_ms}
    RETURNING 1),
offered AS (
    INSERT INTO matching.offers (city_id, ride_id, offer_id, driver_id, phase, state, made_at_ms, expires_at_ms, shown_at_ms,
                                 pickup_eta_s, pickup_distance_m)
    SELECT {city}, {ride_id}, o.* FROM unnest({offers}) AS o
    ON CONFLICT (offer_id) DO UPDATE SET state = EXCLUDED.state, shown_at_ms = EXCLUDED.shown_at_ms
    RETURNING 1),
logged AS (
    INSERT INTO matching.outbox (city_id, aggregate_id, version, at_ms, index, kind, envelope)
    SELECT {city}, {ride_id}, {version}, {at_ms}, e.* FROM unnest({events}) AS e)
{"".join("," + part for part in parts)}
SELECT (CASE {" ".join(f"WHEN {holds} THEN '{refusal}'" for holds, refusal in refusals)} ELSE 'true' END)::boolean AS made,
       {seen}
  FROM (SELECT 1) AS one{rows}
"""  # noqa: S608 - constants only


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[tuple[object, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


def _update_values(before: Ride, ride: Ride, change: Change) -> tuple[object, ...]:
    state, body = ride.state.value, ride_body(ride)
    deadline_ms, leased_until_ms = ride.next_deadline_ms, change.leased_until_ms
    return ride.ride_id, before.version, state, ride.version, ride.updated_at_ms, deadline_ms, body, leased_until_ms


def _insert_values(ride: Ride, change: Change) -> tuple[object, ...]:
    return (
        ride.ride_id,
        ride.city_id,
        ride.rider_id,
        ride.quote.quote_id,
        ride.state.value,
        ride.version,
        ride.pickup.lat,
        ride.pickup.lng,
        ride.requested_at_ms,
        ride.updated_at_ms,
        ride.next_deadline_ms,
        ride_body(ride),
        change.leased_until_ms,
    )


def _offer_values(offer: Offer) -> tuple[object, ...]:
    return (
        offer.offer_id,
        offer.driver_id,
        offer.phase,
        offer.state.value,
        offer.made_at_ms,
        offer.expires_at_ms,
        offer.shown_at_ms,
        offer.pickup_eta_s,
        offer.pickup_distance_m,
    )
