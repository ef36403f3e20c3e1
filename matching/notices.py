"""Who must look again? After each commit the watchers of the ride and of its drivers are woken, on this worker and on all others.

They are given the ride as it was committed; on other workers too, once these are heard of. Notices overtake each other: whoever
is given a ride minds its version. One lost with Valkey is made good when the subscription is back, by waking everybody, who then
read PostgreSQL. One that died with its worker between commit and notice is made good by looks at PostgreSQL every few seconds:
`Watcher.remind` for offers, `Tracker` for rides.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hexhail.kernel.errors import DomainError
from hexhail.stores.valkey import answered
from matching import keys
from matching.rows import ride_line, ride_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from redis.asyncio import Redis

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.stores.valkey import Valkey
    from matching.model import Ride

    Changed = Callable[[Ride | None], None]

log = structlog.get_logger(__name__)

_NO_RIDE = "{}"
_RETRY_S = 0.5
_QUIET_S = 5.0
"""When nothing has come for so long, the line is asked whether it is there."""


class Notices:
    """Wakes watchers by subject: a ride's id, or one of the two subjects of a driver."""

    def __init__(self, redis: Redis, valkey: Valkey, cities: Cities, clock: Clock, worker_id: str) -> None:
        """Listens by `redis`, and speaks by `valkey`."""
        self._redis = redis
        self._valkey = valkey
        self._cities = cities
        self._clock = clock
        self._worker_id = worker_id
        self._watchers: defaultdict[str, set[Changed]] = defaultdict(set)
        self._unsent: defaultdict[str, dict[tuple[str, ...], Ride | None]] = defaultdict(dict)
        self._sending: set[str] = set()
        self._heard_elsewhere: dict[str, bool] = {}
        """Did any other worker hear the last notice of a city? If not, the next one need not be complete."""
        self._senders = set[asyncio.Task[None]]()
        self.is_remembered: Callable[[str], bool] = lambda _ride_id: False
        """Is the newest version of this ride of use here, though nobody watches it?"""
        self.on_ride: Callable[[Ride], None] = lambda _ride: None
        """Called with every ride that another worker has committed and that somebody watches or remembers here."""

    @contextmanager
    def watch(self, subject: str, changed: Changed) -> Iterator[None]:
        """Calls `changed` whenever the subject has changed, for the time of the block: with the ride as it now is, or with None
        where only PostgreSQL can tell.
        """
        self._watchers[subject].add(changed)
        try:
            yield
        finally:
            self._watchers[subject].discard(changed)
            if not self._watchers[subject]:
                del self._watchers[subject]

    def publish(self, city_id: str, subjects: Iterable[str], ride: Ride | None = None) -> None:
        """Wakes the watchers of these subjects. Those of other workers may miss it while Valkey does not answer.

        While a notice is on its way, those that follow gather for the next. The first of the subjects is the ride's id, where
        there is a ride.
        """
        subjects = tuple(subjects)
        self._wake(subjects, ride)
        self._unsent[city_id][subjects] = ride
        if city_id not in self._sending:
            self._sending.add(city_id)
            sender = asyncio.create_task(self._send_all(city_id))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def close(self) -> None:
        """Waits for what is still being sent."""
        while self._senders:
            await asyncio.gather(*self._senders, return_exceptions=True)

    async def _send_all(self, city_id: str) -> None:
        try:
            while unsent := self._unsent.pop(city_id, None):
                await self._send(city_id, "\n".join((self._worker_id, *self._lines(city_id, unsent))))
        finally:
            self._sending.discard(city_id)

    async def _send(self, city_id: str, told: str) -> None:
        try:
            (heard,) = answered(await self._valkey.ask([("SPUBLISH", keys.notices(city_id), told)]))
            self._heard_elsewhere[city_id] = heard > 1
        except DomainError as error:
            log.warning("notice not sent", error=error.message)

    async def listen(self) -> None:
        """Hears the notices of other workers, for ever. A line that has gone dead without a word is noticed by its silence."""
        while True:
            pubsub = self._redis.pubsub()
            try:
                await pubsub.ssubscribe(*(keys.notices(city.city_id) for city in self._cities))
                self._wake(tuple(self._watchers))
                asked = False
                while True:
                    message = await pubsub.get_message(timeout=_QUIET_S)
                    if message is None and asked:
                        raise RedisConnectionError(f"no answer within {_QUIET_S:g} s")
                    asked = message is None
                    if message is None:
                        await pubsub.ping()
                    elif message["type"] == "smessage":
                        worker_id, *noticed = message["data"].decode().split("\n")
                        if worker_id != self._worker_id:
                            self._hear(noticed)
            except (RedisError, OSError) as error:
                log.warning("notices interrupted", error=str(error))
                await self._clock.sleep(_RETRY_S)
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _lines(self, city_id: str, unsent: Mapping[tuple[str, ...], Ride | None]) -> Iterator[str]:
        """Subjects, and behind them the ride that they are of, where anybody would hear it."""
        complete = self._heard_elsewhere.get(city_id, True)
        for subjects, ride in unsent.items():
            yield from subjects
            if ride is None or not complete:
                yield _NO_RIDE
            else:
                yield ride_line(ride)

    def _hear(self, noticed: Iterable[str]) -> None:
        """Lines of another worker. A ride is read only where somebody watches or remembers it."""
        subjects = list[str]()
        for line in noticed:
            if not line.startswith("{"):
                subjects.append(line)
                continue
            if any(subject in self._watchers or self.is_remembered(subject) for subject in subjects):
                self._wake(subjects, self._heard(line))
            subjects = []
        self._wake(subjects)

    def _heard(self, line: str) -> Ride | None:
        if line == _NO_RIDE:
            return None
        try:
            ride = ride_of_line(line)
            self.on_ride(ride)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("a notice that cannot be read", error=str(error))
            return None
        return ride

    def _wake(self, subjects: Iterable[str], ride: Ride | None = None) -> None:
        for subject in subjects:
            for changed in tuple(self._watchers.get(subject, ())):
                changed(ride)


def offers_subject(city_id: str, driver_id: str) -> str:
    """The subject of a driver's offers."""
    return f"{city_id}/{driver_id}/offers"


def driver_subject(city_id: str, driver_id: str) -> str:
    """The subject of a driver's going online and offline, and of its newest session."""
    return f"{city_id}/{driver_id}"
