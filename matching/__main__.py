"""Settings, wiring, serve: the matching service."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from hexhail.api.matching.v1.matching_service_pb2_grpc import (
    MatchingServiceServicer,
    add_MatchingServiceServicer_to_server,
)
from hexhail.cities import Cities, policy_of
from hexhail.embedded import StoreError
from hexhail.rpc.background import background, every
from hexhail.rpc.channel import PeerToken, peer_channel
from hexhail.rpc.server import Server, ServiceSpec, Shell, serving
from hexhail.rpc.service import Service, main_of
from hexhail.stores.valkey import connect, open_valkey
from matching.batcher import Batcher
from matching.changer import Changer
from matching.dispatcher import Dispatcher
from matching.events_wire import encode_driver_event, encode_ride_events, encode_window_event
from matching.location_grpc import GrpcLocation
from matching.metrics import MatchingMetrics
from matching.minder import Minder
from matching.notices import Notices
from matching.params import MatchingParams
from matching.policies import Ranker, policy_for
from matching.postgres_history import PostgresHistory
from matching.postgres_leases import PostgresLeases
from matching.postgres_log import PostgresLog
from matching.postgres_store import PostgresStore
from matching.postgres_windows import PostgresWindows
from matching.pricing_grpc import GrpcPricing
from matching.reconciler import Reconciler
from matching.reconciling import Repair
from matching.redis_claims import RedisClaims
from matching.redis_scripts import SCRIPTS
from matching.redis_sessions import RedisSessions
from matching.redis_stream import RedisStream
from matching.relay import Relay
from matching.schema import drop_old_outbox_days, ensure_outbox_days, migrate
from matching.searcher import Searcher
from matching.servicer import ACCESS, MatchingServicer
from matching.solver import Solver
from matching.teller import Teller
from matching.timekeeper import Timekeeper
from matching.tracker import Tracker
from matching.watcher import Watcher
from routing.city import sources_of
from routing.sources import loops_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.rpc.service import Runtime
    from hexhail.stores.valkey import Valkey
    from matching.store import Claims
    from routing.sources import RouterSource

_POOL_SIZE = 16
_SESSION_RENEWAL_S = 5.0
_REMINDER_S = 2.0
_HOUSEKEEPING_S = 3600.0
DAY_MS = 24 * 3600 * 1000
EVENTS_KEPT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Running:
    """A matching service at work, with the parts that tests reach for."""

    server: Server
    store: PostgresStore
    teller: Teller
    timekeeper: Timekeeper
    tracker: Tracker
    minder: Minder
    metrics: Mapping[str, MatchingMetrics]
    relays: Mapping[CityId, Relay]
    reconciler: Reconciler
    batchers: Mapping[CityId, Batcher]

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.address


async def _nothing_to_reset(_connection: object) -> None:
    """Our statements change no session: the default reset would cost a round trip for every use of a connection."""


async def _keep_house(pool: asyncpg.Pool[asyncpg.Record], store: PostgresStore, clock: Clock) -> None:
    await ensure_outbox_days(pool, clock.now_ms())
    await store.forget_old_requests(clock.now_ms())
    await drop_old_outbox_days(pool, clock.now_ms() - EVENTS_KEPT_DAYS * DAY_MS)


async def _give_up(duties: Sequence[Relay | Batcher | Reconciler]) -> None:
    for duty in duties:
        await duty.close()


async def _bring_up_to_date(postgres_dsn: str) -> None:
    try:
        await migrate(postgres_dsn)
    except (SQLAlchemyError, asyncpg.PostgresError, OSError) as error:
        line = " ".join(str(error).split())
        raise StoreError(f"the schema of matching cannot be brought up to date in HEXHAIL_POSTGRES_DSN: {line}") from error


def _count_told(metrics: Mapping[str, MatchingMetrics], city_id: CityId, count: int) -> None:
    metrics[city_id].repairs[Repair.STATE_TOLD] += count


def _relays(
    pool: asyncpg.Pool[asyncpg.Record],
    valkey: Valkey,
    leases: PostgresLeases,
    clock: Clock,
    params: Mapping[CityId, MatchingParams],
    metrics: Mapping[str, MatchingMetrics],
) -> dict[CityId, Relay]:
    log = PostgresLog(pool)
    return {
        city_id: Relay(
            city_id, leases, log, RedisStream(valkey, city_id, p.events.stream_length), clock, p.events, metrics[city_id]
        )
        for city_id, p in params.items()
    }


@asynccontextmanager
async def running(
    cities: Cities,
    *,
    clock: Clock,
    token_key: bytes,
    listen: str,
    redis_url: str,
    postgres_dsn: str,
    location_address: str,
    pricing_address: str,
    sources: Mapping[CityId, RouterSource],
    wrap_claims: Callable[[Claims], Claims] = lambda claims: claims,
    shell: Shell | None = None,
) -> AsyncIterator[Running]:
    """The matching service for the time of the block; `sources` of travel times are closed at its end.

    `wrap_claims` lets a test take the locks away.
    """
    worker_id = secrets.token_hex(6)
    params = {city.city_id: policy_of(city, "matching", MatchingParams) for city in cities}
    offers = {city_id: p.lifecycle for city_id, p in params.items()}
    shell = shell or Shell()
    metrics: dict[str, MatchingMetrics] = {city_id: MatchingMetrics() for city_id in params}
    rankers = {
        city_id: Ranker(city_id, p.ranking, policy_for(p.ranking, f"{city_id}.toml [matching].ranking"), clock, metrics[city_id])
        for city_id, p in params.items()
    }
    shell.exporter.show("matching", metrics)
    await _bring_up_to_date(postgres_dsn)
    async with AsyncExitStack() as stack:
        for source in sources.values():
            stack.push_async_callback(source.aclose)
        pool = await stack.enter_async_context(
            asyncpg.create_pool(postgres_dsn, min_size=2, max_size=_POOL_SIZE, command_timeout=10, reset=_nothing_to_reset)
        )
        await ensure_outbox_days(pool, clock.now_ms())
        valkey = await stack.enter_async_context(aclosing(open_valkey(redis_url, SCRIPTS)))
        token = PeerToken(token_key, "matching")
        location = GrpcLocation(await stack.enter_async_context(peer_channel(location_address)), token)
        pricing = GrpcPricing(await stack.enter_async_context(peer_channel(pricing_address)), token)

        store = PostgresStore(
            pool, cities, encode_ride_events, encode_driver_event, {city_id: p.records for city_id, p in params.items()}
        )
        kept_claims = RedisClaims(valkey, cities, clock)
        claims = wrap_claims(kept_claims)
        sessions = RedisSessions(valkey, cities, clock, worker_id)
        notices = Notices(await stack.enter_async_context(aclosing(connect(redis_url))), valkey, cities, clock, worker_id)
        teller = Teller(location, store, cities, clock, repaired=partial(_count_told, metrics))
        changer = Changer(store, claims, notices, teller, clock, offers)
        notices.on_ride, notices.is_remembered = changer.remembered.put, changer.remembered.__contains__
        searcher = Searcher(location, store, store, sessions, claims, changer, cities, sources, rankers, params, clock)
        timekeeper = Timekeeper(store, changer, searcher, clock, offers)
        tracker = Tracker(location, store, sources, clock, {city_id: p.tracking_period_s for city_id, p in params.items()})
        minder = Minder(store, location, sources, changer, clock, {city_id: p.progress for city_id, p in params.items()})
        watcher = Watcher(store, store, notices, sessions, tracker, changer.remembered)
        leases = PostgresLeases(pool, worker_id)
        relays = _relays(pool, valkey, leases, clock, params, metrics)
        reconciler = Reconciler(leases, store, store, kept_claims, sessions, changer, teller, clock, offers, metrics)
        solver = await stack.enter_async_context(aclosing(Solver()))
        windows = PostgresWindows(pool, encode_window_event)
        batchers = {
            i: Batcher(
                cities[i],
                location,
                windows,
                store,
                sessions,
                claims,
                leases,
                changer,
                sources[i],
                rankers[i],
                solver,
                clock,
                p,
                metrics[i],
            )
            for i, p in params.items()
            if p.in_windows
        }
        store.on_commit = lambda city_id: relays[city_id].wake()
        dispatcher = Dispatcher(store, store, claims, pricing, changer, teller, notices, clock, offers, timekeeper.lateness)
        servicer = MatchingServicer(  # type: ignore[abstract]  # what is not built, the interceptor answers
            cities, dispatcher, watcher, store, store, PostgresHistory(pool), clock, lambda: f"{worker_id}-{secrets.token_hex(6)}"
        )

        stack.push_async_callback(_give_up, (*relays.values(), *batchers.values(), reconciler))
        stack.push_async_callback(notices.close)
        stack.push_async_callback(changer.close)
        stack.push_async_callback(timekeeper.close)
        loops = {
            "notices": notices.listen,
            "teller": teller.run,
            "timekeeper": timekeeper.run,
            **tracker.loops(),
            **minder.loops(),
            **loops_of(sources),
            **{f"reminder {city_id}": every(_REMINDER_S, partial(watcher.remind, city_id), clock) for city_id in params},
            "sessions": every(_SESSION_RENEWAL_S, sessions.renew, clock),
            **{f"windows {city_id}": batcher.run for city_id, batcher in batchers.items()},
            **{f"relay {city_id}": relay.run for city_id, relay in relays.items()},
            "reconciler": reconciler.run,
            "housekeeping": every(_HOUSEKEEPING_S, partial(_keep_house, pool, store, clock), clock),
        }
        await stack.enter_async_context(background(loops, clock))
        spec = ServiceSpec(
            "hexhail.api.matching.v1.MatchingService",
            servicer,
            MatchingServiceServicer,
            add_MatchingServiceServicer_to_server,
            ACCESS,
            beginning=frozenset({"RequestRide"}),
        )
        server = await stack.enter_async_context(serving(spec, listen, token_key, shell=shell))
        yield Running(server, store, teller, timekeeper, tracker, minder, metrics, relays, reconciler, batchers)


def from_runtime(runtime: Runtime) -> AbstractAsyncContextManager[Running]:
    """The service that settings describe."""
    settings = runtime.settings
    return running(
        runtime.cities,
        clock=runtime.clock,
        token_key=runtime.token_key,
        listen=settings.matching_address,
        redis_url=runtime.redis_url,
        postgres_dsn=runtime.postgres_dsn,
        location_address=settings.location_address,
        pricing_address=settings.pricing_address,
        sources=sources_of(runtime.cities, settings),
        shell=runtime.shell,
    )


SERVICE = Service("matching", from_runtime, uses_postgres=True, has_workers=True)

if __name__ == "__main__":
    raise SystemExit(main_of(SERVICE))
