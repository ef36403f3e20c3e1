"""Rides and drivers in PostgreSQL: the truth. One transaction per change, conditional on the version that was decided upon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.units import MS_PER_S
from matching import postgres_statements as sql
from matching.model import OPEN, RideState
from matching.postgres_change import REPEATS_KEPT_MS, Refusal, Touch, refusal_of, statement_of
from matching.records import RecordParams
from matching.rows import check_of, driver_of, driver_of_change, offer_of, ride_of, watch_body
from matching.store import Conflict, Driver, RequestKey, RequestRepeated, Stats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from hexhail.cities import Cities
    from hexhail.kernel.ids import CityId, DriverId, OfferId, RideId
    from matching.model import Offer, Ride
    from matching.progress import Check, Watch
    from matching.store import Change

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    EncodeRideEvents = Callable[[Change], list[tuple[str, bytes]]]
    EncodeDriverEvent = Callable[[Driver, str, int, str, str], bytes]

log = structlog.get_logger(__name__)

_PAGE = 1_000

_UNIQUE: dict[str, Reason] = {
    "rides_one_active_per_rider": Reason.RIDER_BUSY,
    "rides_quote_used_once": Reason.QUOTE_USED,
    "assignments_one_active_per_slot": Reason.DRIVER_BUSY,
}
"""Unique index -> what it means that it refused."""


@dataclass(slots=True)
class StoreCounts:
    """What the fence did."""

    commits: int = 0
    rejected_commits: int = 0
    """Changes that reached PostgreSQL and were refused there, by version or by index."""


_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server that ends says so to idle connections, and asyncpg then takes them for busy ones
    OSError,
)


@asynccontextmanager
async def postgres_errors() -> AsyncIterator[None]:
    """Around a call to PostgreSQL: that it does not answer becomes STORE_UNAVAILABLE, that others were first Conflict.

    Refusals come through as they are, and so do defects of ours: values that do not fit a statement are not an outage.
    """
    try:
        yield
    except asyncpg.TransactionRollbackError as error:  # a deadlock broken, a serialization lost
        raise Conflict(str(error)) from error
    except _AWAY as error:
        if isinstance(error, ValueError):
            raise
        raise DomainError(Reason.STORE_UNAVAILABLE, f"PostgreSQL does not answer: {error}", store="postgres") from error


class PostgresStore:
    """Rides and drivers."""

    def __init__(
        self,
        pool: Pool,
        cities: Cities,
        encode_ride_events: EncodeRideEvents,
        encode_driver_event: EncodeDriverEvent,
        records: Mapping[CityId, RecordParams] | None = None,
    ) -> None:
        self._pool = pool
        self._city_ids = [city.city_id for city in cities]
        self._encode_ride_events = encode_ride_events
        self._encode_driver_event = encode_driver_event
        self._records = records or {city.city_id: RecordParams() for city in cities}
        self.counts = StoreCounts()
        self.on_commit: Callable[[CityId], None] = lambda _city_id: None
        """Called when events of a city have been committed here."""

    async def ride(self, ride_id: str) -> Ride:
        """The ride as it is. Raises RIDE_NOT_FOUND, STORE_UNAVAILABLE."""
        rides = await self._rides(sql.RIDES, [ride_id])
        if not rides:
            raise DomainError(Reason.RIDE_NOT_FOUND, ride_id=ride_id)
        return rides[0]

    async def ride_of_offer(self, offer_id: str) -> Ride:
        """The ride that an offer is for. Raises OFFER_NOT_FOUND, STORE_UNAVAILABLE."""
        rides = await self._rides(sql.RIDE_OF_OFFER, offer_id)
        if not rides:
            raise DomainError(Reason.OFFER_NOT_FOUND, offer_id=offer_id)
        return rides[0]

    async def rides_of_rider(self, city_id: CityId, rider_id: str, before: str, limit: int) -> list[Ride]:
        """A rider's rides whose id sorts before `before` (empty: all), newest first. Raises STORE_UNAVAILABLE."""
        return await self._rides(sql.RIDES_OF_RIDER, city_id, rider_id, before, limit)

    async def versions(self, ride_ids: Sequence[str]) -> dict[str, int]:
        """At which version is each of these rides? Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return {row["ride_id"]: row["version"] for row in await connection.fetch(sql.VERSIONS, list(ride_ids))}

    async def _rides(self, statement: str, *values: object) -> list[Ride]:
        async with postgres_errors(), self._pool.acquire() as connection:
            return [ride_of(row) for row in await connection.fetch(statement, *values)]

    async def commit(self, change: Change) -> list[Driver]:
        """Makes a decision true, or none of it; gives the drivers whose state it changed.

        Raises Conflict, RequestRepeated, RIDER_BUSY, QUOTE_USED, DRIVER_BUSY, DRIVER_OFFLINE, DRIVER_SUSPENDED,
        STORE_UNAVAILABLE.
        """
        self.counts.commits += 1
        ride = change.decision.ride
        statement = statement_of(change, self._encode_ride_events(change), self._records[ride.city_id])
        try:
            async with postgres_errors(), self._pool.acquire() as connection:
                rows = await connection.fetch(statement.sql, *statement.values)
        except Conflict:
            self.counts.rejected_commits += 1
            raise
        except asyncpg.UniqueViolationError as error:
            self.counts.rejected_commits += 1
            reason = _UNIQUE.get(error.constraint_name or "")
            if reason is None:
                raise Conflict(error.constraint_name) from error
            raise DomainError(reason, ride_id=ride.ride_id) from None
        except asyncpg.InvalidTextRepresentationError as error:
            refusal = refusal_of(str(error))
            if refusal is None:
                raise
            self.counts.rejected_commits += refusal in (Refusal.CHANGED, Refusal.TAKEN)
            raise await self._refused(refusal, change) from None
        self.on_commit(ride.city_id)
        return await self._touched(ride, [row for row in rows if row["driver_id"] is not None])

    async def _refused(self, refusal: Refusal, change: Change) -> Exception:
        ride = change.decision.ride
        if refusal is Refusal.REPEATED:
            return RequestRepeated(", ".join(request.request_id for request, _ in change.answered()))
        if refusal is not Refusal.GONE or ride.assignment is None:
            return Conflict(f"{ride.ride_id}: {refusal}")
        driver = await self.driver(ride.city_id, ride.assignment.driver_id)
        reason = Reason.DRIVER_SUSPENDED if driver.suspended else Reason.DRIVER_OFFLINE
        return DomainError(reason, driver_id=driver.driver_id)

    async def _touched(self, ride: Ride, rows: Sequence[asyncpg.Record]) -> list[Driver]:
        """The drivers whom a change has given a new version."""
        touched = [driver_of_change(row, "" if row["kind"] == Touch.FREED else ride.ride_id) for row in rows if row["was_bound"]]
        others = [row["driver_id"] for row in rows if not row["was_bound"]]
        if others:  # freed of a ride that they did not have: which one they have, only a new statement sees
            try:
                touched += (await self.drivers(ride.city_id, others)).values()
            except DomainError as error:  # the change stands: the reconciler tells location of who changed lately
                log.warning("drivers told later", reason=error.reason, ride_id=ride.ride_id, drivers=len(others))
        return touched

    async def lease_due(self, now_ms: int, lease_ms: int, limit: int, ride_id: str | None = None) -> list[Ride]:
        """Rides (or this one) whose deadline has come and that no other worker has in hand. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.LEASE_DUE, now_ms, now_ms + lease_ms, limit, ride_id, self._city_ids)
        return await self._rides(sql.RIDES, [row["ride_id"] for row in rows]) if rows else []

    async def keep_leased(self, held: Sequence[Ride], until_ms: int) -> None:
        """Leases for longer those of these rides that have not changed since. Raises STORE_UNAVAILABLE."""
        ids, versions = [ride.ride_id for ride in held], [ride.version for ride in held]
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.KEEP_LEASED, ids, versions, until_ms)

    async def contradictory(self, city_id: CityId, limit: int) -> list[tuple[Ride, DriverId | None]]:
        """Rides that contradict their offers, their assignment or their deadline, each with the driver bound to it.

        Raises STORE_UNAVAILABLE.
        """
        async with postgres_errors(), self._pool.acquire() as connection:
            return [(ride_of(row), row["bound"]) for row in await connection.fetch(sql.CONTRADICTORY, city_id, limit)]

    async def offers_to_gone(self, city_id: CityId, gone_at_ms: int) -> list[OfferId]:
        """Live offers to drivers who have been offline or suspended since then, at the latest. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [row["offer_id"] for row in await connection.fetch(sql.OFFERS_TO_GONE, city_id, gone_at_ms)]

    async def cut_leases(self, city_id: CityId, now_ms: int, latest_ms: int) -> int:
        """Ends leases of rides that are due, which end later than that; how many? Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            done = await connection.execute(sql.CUT_LEASES, city_id, now_ms, latest_ms)
        return int(done.rpartition(" ")[2])

    async def all_live_offers(self, city_id: CityId) -> list[tuple[DriverId, OfferId, RideId]]:
        """Every live offer of a city. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(sql.ALL_LIVE_OFFERS, city_id)]

    async def open_pickups(self, city_id: CityId) -> list[Place]:
        """Where riders wait whom nobody has accepted yet. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.OPEN_PICKUPS, city_id)
        return [Place(row["pickup_lat"], row["pickup_lng"]) for row in rows]

    async def lease_checks(self, city_id: CityId, now_ms: int, period_ms: int, limit: int) -> list[Check]:
        """Rides whose driver nobody has looked at for a period, nor accepted within it. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [check_of(row) for row in await connection.fetch(sql.LEASE_CHECKS, city_id, now_ms, now_ms - period_ms, limit)]

    async def keep_watches(self, watches: Sequence[tuple[Check, Watch]]) -> None:
        """What is remembered until the next check. Raises STORE_UNAVAILABLE."""
        columns = (
            [check.ride_id for check, _ in watches],
            [check.driver_id for check, _ in watches],
            [watch_body(watch) for _, watch in watches],
        )
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.KEEP_WATCHES, *columns)

    async def live_offers(self, city_id: CityId, driver_id: str, and_these: Sequence[str]) -> list[tuple[Ride, Offer]]:
        """A driver's live offers, and those of `and_these` in whatever state. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            offers = await connection.fetch(sql.OFFERS_OF_DRIVER, city_id, driver_id, list(and_these))
            if not offers:
                return []
            rows = await connection.fetch(sql.RIDES, [offer["ride_id"] for offer in offers])
        rides = {row["ride_id"]: ride_of(row) for row in rows}
        return [(rides[offer["ride_id"]], offer_of(offer)) for offer in offers]

    async def first_answer(self, request: RequestKey, now_ms: int) -> bytes | None:
        """What this request was answered in the last 24 h; None for a new one. Raises REQUEST_ID_REUSED, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            row = await connection.fetchrow(
                sql.FIRST_ANSWER, request.city_id, request.actor, request.request_id, now_ms - REPEATS_KEPT_MS
            )
        if row is None:
            return None
        if row["body_digest"] != request.body_digest:
            raise DomainError(
                Reason.REQUEST_ID_REUSED, "this request_id came before with another body", request_id=request.request_id
            )
        answer: bytes = row["answer"]
        return answer

    async def keep_answer(self, request: RequestKey, answer: bytes, now_ms: int) -> None:
        """What a request is told that changes nothing, for its repeats. Raises RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            await _keep_answer(connection, request, answer, now_ms)

    async def forget_old_requests(self, now_ms: int) -> None:
        """Drops answers that no repeat will be given any more. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.FORGET_REQUESTS, now_ms - REPEATS_KEPT_MS)

    async def driver(self, city_id: CityId, driver_id: str) -> Driver:
        """Raises DRIVER_NOT_FOUND, STORE_UNAVAILABLE."""
        found = await self.drivers(city_id, [driver_id])
        if driver_id not in found:
            raise DomainError(Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
        return found[driver_id]

    async def drivers(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, Driver]:
        """Those of them that are known. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.DRIVERS, city_id, list(driver_ids))
        return {row["driver_id"]: driver_of(row) for row in rows}

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
        """Makes a driver known, or changes what is known. Raises RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            (row,) = await connection.fetch(sql.UPSERT_DRIVER, city_id, driver_id, list(capabilities), rating_milli, now_ms)
            driver = await self._driver_changed(connection, driver_of(row), "DRIVER_UPSERTED", actor, request, answer, now_ms)
        self.on_commit(city_id)
        return driver

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
        """Raises DRIVER_NOT_FOUND, DRIVER_SUSPENDED, RequestRepeated, STORE_UNAVAILABLE."""
        kind = "DRIVER_WENT_ONLINE" if online else "DRIVER_WENT_OFFLINE"
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            row = await connection.fetchrow(sql.SET_ONLINE, city_id, driver_id, online, now_ms)
            if row is None:
                known = await connection.fetchrow(sql.DRIVERS, city_id, [driver_id])
                raise DomainError(Reason.DRIVER_SUSPENDED if known else Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
            driver = await self._driver_changed(connection, driver_of(row), kind, actor, request, answer, now_ms)
        self.on_commit(city_id)
        return driver

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
        """No more offers for a driver, or offers again. Raises DRIVER_NOT_FOUND, RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            row = await connection.fetchrow(sql.SET_SUSPENDED, city_id, driver_id, suspended, now_ms)
            if row is None:
                raise DomainError(Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
            return await self._driver_changed(
                connection, driver_of(row), "DRIVER_SUSPENDED", actor, request, answer, now_ms, reason
            )

    async def stats(self, city_id: CityId, now_ms: int) -> Stats:
        """How the city stands. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            (drivers,) = await connection.fetch(sql.DRIVER_STATS, city_id)
            rows = await connection.fetch(sql.RIDE_STATS, city_id, now_ms)
        waiting = [row for row in rows if RideState(row["state"]) in OPEN]
        count = sum(row["rides"] for row in waiting)
        return Stats(
            drivers_online=drivers["online"],
            drivers_available=drivers["available"],
            rides={RideState(row["state"]): row["rides"] for row in rows},
            waited_mean_s=sum(row["waited_ms"] for row in waiting) / count / MS_PER_S if count else 0.0,
            waited_max_s=max((row["longest_ms"] for row in waiting), default=0) / MS_PER_S,
        )

    async def drivers_to_tell(self, city_id: CityId, changed_since_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that is online, on a ride, or changed since then, in pages. Raises STORE_UNAVAILABLE."""
        async for page in self._paged(sql.DRIVERS_TO_TELL, city_id, changed_since_ms):
            yield page

    async def drivers_changed(self, city_id: CityId, from_ms: int, until_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that changed last between these times, in pages. Raises STORE_UNAVAILABLE."""
        async for page in self._paged(sql.DRIVERS_CHANGED, city_id, from_ms, until_ms):
            yield page

    async def _paged(self, statement: str, city_id: CityId, *values: int) -> AsyncIterator[list[Driver]]:
        last = ""
        while True:
            async with postgres_errors(), self._pool.acquire() as connection:
                rows = await connection.fetch(statement, city_id, last, _PAGE, *values)
            if rows:
                yield [driver_of(row) for row in rows]
            if len(rows) < _PAGE:
                return
            last = rows[-1]["driver_id"]

    async def _driver_changed(
        self,
        connection: Connection,
        driver: Driver,
        kind: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
        note: str = "",
    ) -> Driver:
        envelope = self._encode_driver_event(driver, kind, now_ms, actor, note)
        await connection.execute(sql.INSERT_EVENT, driver.city_id, driver.driver_id, driver.version, 0, now_ms, kind, envelope)
        await _keep_answer(connection, request, answer(driver), now_ms)
        return driver


async def _keep_answer(connection: Connection, request: RequestKey, answer: bytes, now_ms: int) -> None:
    done = await connection.execute(sql.INSERT_REQUEST, *request.columns, answer, now_ms, now_ms - REPEATS_KEPT_MS)
    if done != "INSERT 0 1":
        raise RequestRepeated(request.request_id)
