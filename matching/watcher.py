"""What changes before a watcher's eyes: a ride by versions, a driver's offers.

Woken by notices: with the ride as it was committed, or else to read PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hexhail.kernel.errors import DomainError, Reason
from matching.model import FINAL, OfferState
from matching.notices import driver_subject, offers_subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from hexhail.kernel.ids import CityId
    from matching.model import Offer, Ride
    from matching.notices import Notices
    from matching.redis_sessions import RedisSessions
    from matching.remembered import Remembered
    from matching.store import Drivers, Rides
    from matching.tracker import Track, Tracker


@dataclass(slots=True)
class _RideMail:
    """What has come in for a watcher since it last looked: only the newest counts, so a slow reader has no backlog."""

    event: asyncio.Event
    must_read: bool = True
    ride: Ride | None = None
    track: Track | None = None

    def on_ride(self, ride: Ride | None = None) -> None:
        if ride is None:
            self.must_read = True
        elif self.ride is None or self.ride.version < ride.version:
            self.ride = ride
        self.event.set()

    def on_track(self, track: Track) -> None:
        self.track = track
        self.event.set()


@dataclass(slots=True)
class _OffersMail:
    """The same for a driver's phone."""

    event: asyncio.Event
    city_id: CityId
    driver_id: str
    must_read: bool = True
    news: dict[str, tuple[Ride, Offer]] = field(default_factory=dict)
    driver_changed: bool = False
    live: frozenset[str] = frozenset()
    """The live offers that the phone knows of."""

    def on_offers(self, ride: Ride | None = None) -> None:
        if ride is None:
            self.must_read = True
        else:
            for offer in ride.offers:
                if offer.driver_id == self.driver_id:
                    known = self.news.get(offer.offer_id)
                    if known is None or known[0].version < ride.version:
                        self.news[offer.offer_id] = (ride, offer)
        self.event.set()

    def on_driver(self, _ride: Ride | None = None) -> None:
        self.driver_changed = True
        self.event.set()


@dataclass(frozen=True, slots=True)
class OffersSeen:
    """A snapshot of a driver's live offers, or those that changed."""

    snapshot: bool
    offers: tuple[tuple[Ride, Offer], ...]


class Watcher:
    """Streams of states."""

    def __init__(
        self,
        rides: Rides,
        drivers: Drivers,
        notices: Notices,
        sessions: RedisSessions,
        tracker: Tracker,
        remembered: Remembered,
    ) -> None:
        self._rides = rides
        self._drivers = drivers
        self._notices = notices
        self._sessions = sessions
        self._tracker = tracker
        self._remembered = remembered
        self._phones: dict[str, _OffersMail] = {}

    async def ride(self, ride: Ride, after_version: int) -> AsyncIterator[Ride | Track]:
        """The ride's versions after this one, and between them its driver's tracks; ends once the ride is final.

        Each is the newest at its moment: who reads slowly misses some in between, and never the last. A watcher who knows of a
        later version than there is (PostgreSQL lost some) is told what is.

        ride : as PostgreSQL has it, not as it is remembered
        """
        known = self._remembered.ride(ride.ride_id)
        mail = _RideMail(asyncio.Event(), must_read=known is None or known.version < ride.version, ride=known)
        version = after_version if after_version <= ride.version else 0
        with (
            self._notices.watch(ride.ride_id, mail.on_ride),
            self._tracker.follow(ride, mail.on_track, mail.on_ride) as followed,
        ):
            while True:
                mail.event.clear()
                news, mail.ride = mail.ride, None
                if mail.must_read:
                    mail.must_read = False
                    news = await self._rides.ride(ride.ride_id)
                if news is not None and news.version >= ride.version:
                    followed.ride = ride = news
                if ride.version > version:
                    version, mail.track = ride.version, None
                    yield ride
                if ride.state in FINAL:
                    return
                if mail.track is not None:
                    track, mail.track = mail.track, None
                    yield track
                await mail.event.wait()

    async def offers(self, city_id: CityId, driver_id: str, stream_id: str) -> AsyncIterator[OffersSeen]:
        """A driver's live offers, then those that change; ends when the driver goes offline, is suspended or has a newer session.

        Raises DRIVER_NOT_FOUND, DRIVER_OFFLINE, DRIVER_SUSPENDED.
        """
        driver = await self._drivers.driver(city_id, driver_id)
        if not driver.online:
            raise DomainError(Reason.DRIVER_OFFLINE, "go online first", driver_id=driver_id)
        if driver.suspended:
            raise DomainError(Reason.DRIVER_SUSPENDED, "an operator has to lift it", driver_id=driver_id)
        mail = self._phones[stream_id] = _OffersMail(asyncio.Event(), city_id, driver_id)
        with (
            self._notices.watch(offers_subject(city_id, driver_id), mail.on_offers),
            self._notices.watch(driver_subject(city_id, driver_id), mail.on_driver),
        ):
            try:
                await self._sessions.open(city_id, driver_id, stream_id)
                self._notices.publish(city_id, [driver_subject(city_id, driver_id)])
                async for seen in self._offers_as_they_change(city_id, driver_id, stream_id, mail):
                    yield seen
            finally:
                del self._phones[stream_id]
                await self._sessions.close(city_id, driver_id, stream_id)

    async def remind(self, city_id: CityId) -> None:
        """Wakes phones that know of other offers than there are: the notice was lost. Raises STORE_UNAVAILABLE."""
        phones = [mail for mail in self._phones.values() if mail.city_id == city_id]
        if not phones:
            return
        live: defaultdict[str, set[str]] = defaultdict(set)
        for driver_id, offer_id, _ in await self._rides.all_live_offers(city_id):
            live[driver_id].add(offer_id)
        for mail in phones:
            if mail.live != live.get(mail.driver_id, frozenset()):
                mail.on_offers()

    async def _offers_as_they_change(
        self, city_id: CityId, driver_id: str, stream_id: str, mail: _OffersMail
    ) -> AsyncIterator[OffersSeen]:
        shown: dict[str, Offer] = {}
        over = set[str]()
        snapshot = True
        while True:
            mail.event.clear()
            if mail.driver_changed:
                mail.driver_changed = False
                if not await self._still_there(city_id, driver_id, stream_id):
                    return
            news, mail.news = tuple(mail.news.values()), {}
            over.update(_ended(news))
            if mail.must_read:
                mail.must_read = False
                news = tuple(await self._rides.live_offers(city_id, driver_id, list(shown)))
            # That a phone shows an offer is no news to the phone; nor is the end of one that it was never told of.
            changed = tuple(
                (ride, offer)
                for ride, offer in news
                if _unshown(offer) != shown.get(offer.offer_id)
                and (offer.offer_id not in over if offer.state is OfferState.LIVE else offer.offer_id in shown)
            )
            # No offer lives again: what says so was overtaken on its way.
            over.update(_ended(news))
            for _, offer in changed:
                if offer.state is OfferState.LIVE:
                    shown[offer.offer_id] = _unshown(offer)
                else:
                    del shown[offer.offer_id]
            mail.live = frozenset(shown)
            if changed or snapshot:
                yield OffersSeen(snapshot, changed)
                snapshot = False
            await mail.event.wait()

    async def _still_there(self, city_id: CityId, driver_id: str, stream_id: str) -> bool:
        if not await self._sessions.holds(city_id, driver_id, stream_id):
            return False
        driver = await self._drivers.driver(city_id, driver_id)
        return driver.online and not driver.suspended


def _ended(news: Iterable[tuple[Ride, Offer]]) -> Iterator[str]:
    return (offer.offer_id for _, offer in news if offer.state is not OfferState.LIVE)


def _unshown(offer: Offer) -> Offer:
    return replace(offer, shown_at_ms=0)
