"""The SQL of matching. What must hold whatever happens, holds here: conditional updates and unique indexes."""

from __future__ import annotations

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
NEXT_VERSION = "GREATEST(d.version + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"

# A statement that waits for a row sees the row as it then is, and all else as it was when it began to wait: a version would come
# with the ride of an older one. So whoever changes a driver waits first, in a statement of its own.
LOCK_DRIVER = "SELECT 1 FROM matching.drivers WHERE city_id = $1 AND driver_id = $2 FOR NO KEY UPDATE"

UPSERT_DRIVER = f"""
INSERT INTO matching.drivers AS d (city_id, driver_id, version, capabilities, rating_milli, updated_at_ms)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, $3, $4, $5)
ON CONFLICT (city_id, driver_id) DO UPDATE
   SET version = {NEXT_VERSION}, capabilities = EXCLUDED.capabilities, rating_milli = EXCLUDED.rating_milli,
       updated_at_ms = EXCLUDED.updated_at_ms
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

SET_ONLINE = f"""
UPDATE matching.drivers d SET online = $3, version = {NEXT_VERSION}, updated_at_ms = $4,
       free_since_ms = CASE WHEN $3 AND NOT d.online THEN $4 ELSE d.free_since_ms END
 WHERE d.city_id = $1 AND d.driver_id = $2 AND NOT (d.suspended AND $3)
RETURNING {_DRIVER_COLUMNS}
"""  # noqa: S608 - constants only

SET_SUSPENDED = f"""
UPDATE matching.drivers d SET suspended = $3, version = {NEXT_VERSION}, updated_at_ms = $4,
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
