"""The SQL of matching. What must hold whatever happens, holds here: conditional updates and unique indexes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_DRIVER_COLUMNS = """
       d.*,
       (SELECT a.ride_id FROM matching.assignments a
         WHERE a.city_id = d.city_id AND a.driver_id = d.driver_id AND a.released_at_ms IS NULL LIMIT 1) AS ride_id,
       EXISTS (SELECT 1 FROM matching.offers o
         WHERE o.city_id = d.city_id AND o.driver_id = d.driver_id AND o.state = 'LIVE') AS has_live_offer
"""

DRIVERS = f"SELECT {_DRIVER_COLUMNS} FROM matching.drivers d WHERE d.city_id = $1 AND d.driver_id = ANY($2)"  # noqa: S608 - constants only

DRIVERS_TO_TELL = f"""
SELECT {_DRIVER_COLUMNS}
  FROM matching.drivers d
 WHERE d.city_id = $1 AND d.driver_id > $2
   AND (d.online OR d.updated_at_ms >= $4 OR EXISTS (SELECT 1 FROM matching.assignments a
                             WHERE a.city_id = d.city_id AND a.driver_id = d.driver_id AND a.released_at_ms IS NULL))
 ORDER BY d.driver_id
 LIMIT $3
"""  # noqa: S608 - constants only

DRIVERS_CHANGED = f"""
SELECT {_DRIVER_COLUMNS}
  FROM matching.drivers d
 WHERE d.city_id = $1 AND d.driver_id > $2 AND d.updated_at_ms BETWEEN $4 AND $5
 ORDER BY d.driver_id
 LIMIT $3
"""  # noqa: S608 - constants only

# Location compares versions with what an earlier database may have told it: they grow with real time as well.
_NEXT_VERSION = "GREATEST(d.version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"

# A statement that waits for a row sees the row as it then is, and all else as it was when it began to wait: a version would come
# with the ride of an older one. So whoever changes a driver waits first, in a statement of its own.
LOCK_DRIVER = "SELECT 1 FROM matching.drivers WHERE city_id = $1 AND driver_id = $2 FOR NO KEY UPDATE"

UPSERT_DRIVER = f"""
INSERT INTO matching.drivers AS d (city_id, driver_id, version, capabilities, rating_milli, updated_at_ms)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $3, $4, $5)
ON CONFLICT (city_id, driver_id) DO UPDATE
   SET version = {_NEXT_VERSION}, capabilities = EXCLUDED.capabilities, rating_milli = EXCLUDED.rating_milli,
       updated_at_ms = EXCLUDED.updated_at_ms
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

SET_ONLINE = f"""
UPDATE matching.drivers d SET online = $3, version = {_NEXT_VERSION}, updated_at_ms = $4,
       free_since_ms = CASE WHEN $3 AND NOT d.online THEN $4 ELSE d.free_since_ms END
 WHERE d.city_id = $1 AND d.driver_id = $2 AND NOT (d.suspended AND $3)
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

SET_SUSPENDED = f"""
UPDATE matching.drivers d SET suspended = $3, version = {_NEXT_VERSION}, updated_at_ms = $4,
       free_since_ms = CASE WHEN d.suspended AND NOT $3 THEN $4 ELSE d.free_since_ms END
 WHERE d.city_id = $1 AND d.driver_id = $2
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

DRIVER_STATS = """
SELECT count(*) AS online, count(*) FILTER (WHERE NOT d.suspended AND a.driver_id IS NULL) AS available
  FROM matching.drivers d
  LEFT JOIN matching.assignments a
    ON a.city_id = d.city_id AND a.driver_id = d.driver_id AND a.released_at_ms IS NULL
 WHERE d.city_id = $1 AND d.online
"""

# Rides that are not over are those with a deadline, which have an index of their own.
RIDE_STATS = """
SELECT state, count(*) AS rides, sum($2 - requested_at_ms)::bigint AS waited_ms, max($2 - requested_at_ms) AS longest_ms
  FROM matching.rides WHERE city_id = $1 AND next_deadline_ms IS NOT NULL GROUP BY state
"""

# `Step` of matching/records.py, which says what the values are.
_RECORD_STEP = """
       shown_milli = round(d.shown_milli * $4::float8)::bigint + $5,
       accepted_milli = GREATEST(0, round(d.accepted_milli * $4::float8)::bigint + $6)
"""

# A driver who accepts must still be online: going offline at the same moment is decided by this row's lock.
TOUCH_ACCEPTING_DRIVER = f"""
UPDATE matching.drivers d SET version = {_NEXT_VERSION}, updated_at_ms = $3, {_RECORD_STEP}
 WHERE d.city_id = $1 AND d.driver_id = $2 AND d.online AND NOT d.suspended
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

TOUCH_RELEASED_DRIVER = f"""
UPDATE matching.drivers d SET version = {_NEXT_VERSION}, updated_at_ms = $3, free_since_ms = $3
 WHERE d.city_id = $1 AND d.driver_id = $2
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

# Whoever goes offline or is suspended now waits for the offer, and then finds it: no offer slips past into nobody's hands.
ANY_ASSIGNED_OR_GONE = """
SELECT EXISTS (SELECT 1 FROM matching.assignments
                WHERE city_id = $1 AND driver_id = ANY($2) AND released_at_ms IS NULL)
    OR (SELECT count(*) FROM (SELECT 1 FROM matching.drivers
                WHERE city_id = $1 AND driver_id = ANY($2) AND online AND NOT suspended FOR SHARE) AS there) < cardinality($2)
"""

# $3 only keeps the numbers of the step's values where the statement above has them.
RECORD_ANSWER = f"""
UPDATE matching.drivers d SET {_RECORD_STEP} WHERE d.city_id = $1 AND d.driver_id = ANY($2) AND $3::bigint IS NOT NULL
"""  # noqa: S608 - constants only

# One statement is one snapshot: a ride and its offers are never of two versions.
_RIDE_WITH_OFFERS = """
SELECT r.*, (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.made_at_ms, o.offer_id)
               FROM matching.offers o WHERE o.ride_id = r.ride_id) AS offers
  FROM matching.rides r
"""

RIDES = _RIDE_WITH_OFFERS + " WHERE r.ride_id = ANY($1)"

VERSIONS = "SELECT ride_id, version FROM matching.rides WHERE ride_id = ANY($1)"

RIDE_OF_OFFER = _RIDE_WITH_OFFERS + " WHERE r.ride_id = (SELECT ride_id FROM matching.offers WHERE offer_id = $1)"  # noqa: S608 - constants only

RIDES_OF_RIDER = (
    _RIDE_WITH_OFFERS
    + """
 WHERE r.city_id = $1 AND r.rider_id = $2 AND ($3 = '' OR r.ride_id < $3)
 ORDER BY r.ride_id DESC LIMIT $4
"""
)

INSERT_RIDE = """
INSERT INTO matching.rides (ride_id, city_id, rider_id, quote_id, state, version, pickup_lat, pickup_lng,
                            requested_at_ms, updated_at_ms, next_deadline_ms, body, leased_until_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""

# The version is the lock: of all who saw the same ride, one changes it.
UPDATE_RIDE = """
UPDATE matching.rides
   SET state = $3, version = $4, updated_at_ms = $5, next_deadline_ms = $6, body = $7, leased_until_ms = $8
 WHERE ride_id = $1 AND version = $2
"""

INSERT_ASSIGNMENT = """
INSERT INTO matching.assignments (city_id, driver_id, ride_id, accepted_at_ms) VALUES ($1, $2, $3, $4)
"""

RELEASE_ASSIGNMENT = """
UPDATE matching.assignments SET released_at_ms = $4, release_reason = $5
 WHERE city_id = $1 AND driver_id = $2 AND ride_id = $3 AND released_at_ms IS NULL
"""

INSERT_EVENT = """
INSERT INTO matching.outbox (city_id, aggregate_id, version, index, at_ms, kind, envelope) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

FIRST_ANSWER = """
SELECT body_digest, answer FROM matching.requests
 WHERE city_id = $1 AND actor = $2 AND request_id = $3 AND answered_at_ms > $4
"""

INSERT_REQUEST = """
INSERT INTO matching.requests AS r (city_id, actor, request_id, body_digest, answer, answered_at_ms)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (city_id, actor, request_id) DO UPDATE
   SET body_digest = EXCLUDED.body_digest, answer = EXCLUDED.answer, answered_at_ms = EXCLUDED.answered_at_ms
 WHERE r.answered_at_ms <= $7
"""

_REQUEST_TYPES = ("text", "text", "text", "bytea", "bytea", "bigint")
_OFFER_TYPES = ("text", "text", "integer", "text", "bigint", "bigint", "bigint", "integer", "integer")
_EVENT_TYPES = ("integer", "text", "bytea")
REPEATED, CHANGED = "REPEATED", "CHANGED"
"""Why a whole change is refused: its request is answered already; the ride is no longer at the version that was decided upon."""


@lru_cache
def whole_change(ride: str, values: int) -> str:
    """One statement, and one round trip, that makes a change of a ride true with its offers, events and answer; or nothing of it.

    ride : INSERT_RIDE or UPDATE_RIDE, with so many `values`. Behind them come city, ride, version and time of the change; from
        when on an answer is kept; then, as arrays, the columns of the requests answered, of the offers and of the events.
    A word that is no boolean undoes everything, and says why.
    """
    first = values + 1
    city, ride_id, version, at_ms = (f"${first + number}" for number in range(4))
    kept_from_ms = f"${first + 4}"
    requests = _numbered(first + 5, _REQUEST_TYPES, "[]")
    offers = _numbered(first + 11, _OFFER_TYPES, "[]")
    events = _numbered(first + 20, _EVENT_TYPES, "[]")
    return f"""
WITH changed AS ({ride} RETURNING 1),
asked AS (
    INSERT INTO matching.requests AS r (city_id, actor, request_id, body_digest, answer, answered_at_ms)
    SELECT q.* FROM unnest({", ".join(requests)}) AS q
    ON CONFLICT (city_id, actor, request_id) DO UPDATE
       SET body_digest = EXCLUDED.body_digest, answer = EXCLUDED.answer, answered_at_ms = EXCLUDED.answered_at_ms
     WHERE r.answered_at_ms <= {kept_from_ms}
    RETURNING 1),
offered AS (
    INSERT INTO matching.offers (city_id, ride_id, offer_id, driver_id, phase, state, made_at_ms, expires_at_ms, shown_at_ms,
                                 pickup_eta_s, pickup_distance_m)
    SELECT {city}, {ride_id}, o.* FROM unnest({", ".join(offers)}) AS o
    ON CONFLICT (offer_id) DO UPDATE SET state = EXCLUDED.state, shown_at_ms = EXCLUDED.shown_at_ms),
logged AS (
    INSERT INTO matching.outbox (city_id, aggregate_id, version, at_ms, index, kind, envelope)
    SELECT {city}, {ride_id}, {version}, {at_ms}, e.* FROM unnest({", ".join(events)}) AS e)
SELECT (CASE WHEN (SELECT count(*) FROM asked) < cardinality({requests[2]}) THEN '{REPEATED}'
             WHEN NOT EXISTS (SELECT FROM changed) THEN '{CHANGED}'
             ELSE 'true' END)::boolean
"""  # noqa: S608 - constants only


def _numbered(first: int, types: Sequence[str], of: str = "") -> list[str]:
    return [f"${first + number}::{kind}{of}" for number, kind in enumerate(types)]


FORGET_REQUESTS = "DELETE FROM matching.requests WHERE answered_at_ms <= $1"

LEASE_DUE = """
UPDATE matching.rides SET leased_until_ms = $2
 WHERE ride_id IN (
    SELECT ride_id FROM matching.rides
     WHERE next_deadline_ms <= $1 AND leased_until_ms <= $1 AND ($4::text IS NULL OR ride_id = $4) AND city_id = ANY($5)
     ORDER BY next_deadline_ms LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING ride_id
"""

KEEP_LEASED = """
UPDATE matching.rides r SET leased_until_ms = $3
  FROM unnest($1::text[], $2::bigint[]) AS held (ride_id, version)
 WHERE r.ride_id = held.ride_id AND r.version = held.version AND r.leased_until_ms > 0
"""

CUT_LEASES = """
UPDATE matching.rides SET leased_until_ms = 0 WHERE city_id = $1 AND next_deadline_ms <= $2 AND leased_until_ms > $3
"""

ALL_LIVE_OFFERS = "SELECT driver_id, offer_id, ride_id FROM matching.offers WHERE city_id = $1 AND state = 'LIVE'"

OFFERS_TO_GONE = """
SELECT o.offer_id FROM matching.offers o JOIN matching.drivers d USING (city_id, driver_id)
 WHERE o.city_id = $1 AND o.state = 'LIVE' AND (d.suspended OR NOT d.online) AND d.updated_at_ms <= $2
"""

# One statement is one snapshot, which sees every change whole: what contradicts itself here is broken, not on its way.
CONTRADICTORY = """
SELECT r.*,
       (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.made_at_ms, o.offer_id)
          FROM matching.offers o WHERE o.ride_id = r.ride_id) AS offers,
       (SELECT a.driver_id FROM matching.assignments a WHERE a.ride_id = r.ride_id AND a.released_at_ms IS NULL) AS bound
  FROM matching.rides r
 WHERE r.city_id = $1 AND r.ride_id IN (
    SELECT o.ride_id FROM matching.offers o JOIN matching.rides s USING (ride_id)
     WHERE o.city_id = $1 AND o.state = 'LIVE' AND s.state <> 'OFFERED'
    UNION ALL
    SELECT a.ride_id FROM matching.assignments a JOIN matching.rides s USING (ride_id)
     WHERE a.city_id = $1 AND a.released_at_ms IS NULL
       AND (s.state NOT IN ('ACCEPTED', 'ARRIVED', 'IN_PROGRESS')
            OR (s.body -> 'assignment' ->> 'driver_id') IS DISTINCT FROM a.driver_id)
    UNION ALL
    SELECT s.ride_id FROM matching.rides s
     WHERE s.city_id = $1 AND s.state IN ('ACCEPTED', 'ARRIVED', 'IN_PROGRESS')
       AND NOT EXISTS (SELECT 1 FROM matching.assignments a WHERE a.ride_id = s.ride_id AND a.released_at_ms IS NULL)
    UNION ALL
    SELECT s.ride_id FROM matching.rides s
     WHERE s.city_id = $1 AND s.next_deadline_ms IS NULL
       AND s.state IN ('SCHEDULED', 'SEARCHING', 'OFFERED', 'ACCEPTED', 'ARRIVED', 'IN_PROGRESS')
    UNION ALL
    SELECT s.ride_id FROM matching.rides s
     WHERE s.city_id = $1 AND s.next_deadline_ms IS NOT NULL
       AND s.state NOT IN ('SCHEDULED', 'SEARCHING', 'OFFERED', 'ACCEPTED', 'ARRIVED', 'IN_PROGRESS'))
 LIMIT $2
"""

# A check is no change of the ride: it leaves the version alone, and wakes nobody.
LEASE_CHECKS = """
WITH due AS (
    SELECT ride_id FROM matching.assignments
     WHERE city_id = $1 AND released_at_ms IS NULL AND GREATEST(checked_at_ms, accepted_at_ms) <= $3
     LIMIT $4 FOR UPDATE SKIP LOCKED)
UPDATE matching.assignments a SET checked_at_ms = $2
  FROM due, matching.rides r
 WHERE a.ride_id = due.ride_id AND a.released_at_ms IS NULL AND r.ride_id = due.ride_id
RETURNING r.ride_id, r.state, r.version, r.pickup_lat, r.pickup_lng, (r.body->>'pickup_at_ms')::bigint AS pickup_at_ms,
          a.driver_id, a.watch
"""

KEEP_WATCHES = """
UPDATE matching.assignments a SET watch = kept.watch::jsonb
  FROM unnest($1::text[], $2::text[], $3::text[]) AS kept (ride_id, driver_id, watch)
 WHERE a.ride_id = kept.ride_id AND a.driver_id = kept.driver_id AND a.released_at_ms IS NULL
"""

OPEN_PICKUPS = """
SELECT pickup_lat, pickup_lng FROM matching.rides WHERE city_id = $1 AND state IN ('SEARCHING', 'OFFERED')
"""

OFFERS_OF_DRIVER = """
SELECT * FROM matching.offers
 WHERE city_id = $1 AND driver_id = $2 AND (state = 'LIVE' OR offer_id = ANY($3))
 ORDER BY made_at_ms, offer_id
"""

# The oldest first: where there are more than one window takes, nobody is passed over for long.
SEARCHING = (
    _RIDE_WITH_OFFERS
    + """
 WHERE r.city_id = $1 AND r.state = 'SEARCHING'
 ORDER BY r.requested_at_ms, r.ride_id LIMIT $2
"""
)

NEXT_WINDOW = """
INSERT INTO matching.windows AS w (city_id, number) VALUES ($1, 1)
ON CONFLICT (city_id) DO UPDATE SET number = w.number + 1
RETURNING number
"""
