"""Gather, decide, commit, tell: how every change of a ride comes about, whoever caused it."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from hexhail.kernel.errors import DomainError, Reason
from matching.model import Decision, Fact, OfferState
from matching.notices import offers_subject
from matching.offers import decide
from matching.remembered import Remembered, Wanted
from matching.store import Change, Conflict, RequestRepeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.candidates import Consideration
    from matching.model import Event, Ride
    from matching.notices import Notices
    from matching.offers import OfferParams
    from matching.store import Claims, Driver, RequestKey, Rides
    from matching.teller import Teller

log = structlog.get_logger(__name__)

T = TypeVar("T")

GATHER_S = 0.02
"""So long does an event wait for others like it of the same ride, where others may come: each change that is saved spares its
watchers, on all workers, as much."""
MAX_ATTEMPTS = 16
"""Each lost attempt means that another change of the same ride was committed: a ride sees few of them."""


@dataclass(frozen=True, slots=True)
class _Joining:
    """An event that waits for its ride's turn, and its caller."""

    wanted: Wanted
    event: Event
    actor: str
    request: RequestKey
    answer: Callable[[Ride], bytes]
    done: asyncio.Future[Ride]

    def end(self, ride: Ride) -> None:
        """Tells the caller, unless it has gone."""
        if not self.done.done():
            self.done.set_result(ride)

    def fail(self, error: Exception) -> None:
        """The same where nothing came of it."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class _Gathering:
    """Events of one ride that will be one change, if they can be."""

    expected: int
    joined: list[_Joining] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, one: _Joining) -> None:
        self.joined.append(one)
        if len(self.joined) >= self.expected:
            self.complete.set()


class Changer:
    """Commits decisions and makes the rest of the world know."""

    def __init__(
        self,
        rides: Rides,
        claims: Claims,
        notices: Notices,
        teller: Teller,
        clock: Clock,
        params: Mapping[CityId, OfferParams],
    ) -> None:
        self._rides = rides
        self._claims = claims
        self._notices = notices
        self._teller = teller
        self._clock = clock
        self._params = params
        self._background: set[asyncio.Task[Any]] = set()
        self._gathering: dict[str, _Gathering] = {}
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self.remembered = Remembered()
        self.on_change: Callable[[Ride, bool], None] = lambda _ride, _leased: None
        """Called with every ride that changed: its deadline may be new, or gone. Told as well: is it leased to this worker?"""
        self.lease: Callable[[Ride], int] = lambda _ride: 0
        """Until when should this worker alone act on a ride that is about to be committed? 0 where it should not."""

    async def change(
        self,
        wanted: Wanted,
        event: Event,
        actor: str,
        request: RequestKey | None = None,
        answer: Callable[[Ride], bytes] | None = None,
    ) -> Ride:
        """What the event makes of the ride, committed. Reads and decides again when others were first.

        Raises what `decide` and the store raise; CONFLICT when others were first again and again.
        """
        known = wanted.recall()
        async with self._turn(known.ride_id if known is not None else ""):
            for attempt in range(MAX_ATTEMPTS):
                ride, decision = await self.decided(wanted, event, fresh=attempt > 0)
                if decision.ride is ride:
                    return await self.leave(ride, request, answer)
                try:
                    return await self.commit(ride, decision, actor, request, answer)
                except Conflict:
                    continue
        raise DomainError(Reason.CONFLICT, "others changed the ride again and again", event=event.kind)

    async def join(
        self,
        wanted: Wanted,
        event: Event,
        actor: str,
        request: RequestKey,
        answer: Callable[[Ride], bytes],
        expected: Callable[[Ride], int],
    ) -> Ride:
        """The same, where several such events of a ride come at once: those that can be are committed as one change.

        expected : how many may come, the ride being as it is; they are not waited for longer than GATHER_S
        Raises as `change` does.
        """
        known = wanted.recall()
        if known is None:
            return await self.change(wanted, event, actor, request, answer)
        joining = _Joining(wanted, event, actor, request, answer, asyncio.get_running_loop().create_future())
        gathering = self._gathering.get(known.ride_id)
        if gathering is None:
            gathering = self._gathering[known.ride_id] = _Gathering(expected(known))
            self._later(self._commit_joined(known.ride_id, gathering))
        gathering.add(joining)
        return await joining.done

    async def _commit_joined(self, ride_id: str, gathering: _Gathering) -> None:
        """All that have come by the ride's turn: together, or else each by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await gathering.complete.wait()
        async with self._turn(ride_id):
            del self._gathering[ride_id]
            joined = gathering.joined
            try:
                ride = await self._commit_together(ride_id, joined) if len(joined) > 1 else None
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told to all who wait
                for one in joined:
                    one.fail(error)
                return
        for one in joined:
            if one.done.done():
                continue  # its caller has gone
            if ride is not None:
                one.end(ride)
                continue
            try:
                one.end(await self.change(one.wanted, one.event, one.actor, one.request, one.answer))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is its caller's
                one.fail(error)

    async def _commit_together(self, ride_id: str, joined: Sequence[_Joining]) -> Ride | None:
        """One version for all of them; None where that cannot be, and nothing has changed then."""
        before = self.remembered.ride(ride_id)
        if before is None:
            return None
        after, facts = before, list[Fact]()
        try:
            for one in joined:
                one.wanted.check(after)
                decision = self.decide(after, one.event)
                if decision.ride is after:
                    return None
                after = decision.ride
                facts += [replace(fact, actor=one.actor) for fact in decision.facts]
            after = replace(after, version=before.version + 1)
            answered = tuple((one.request, one.answer(after)) for one in joined)
            change = Change(before, Decision(after, tuple(facts)), joined[0].actor, answered_too=answered)
            return await self.to_the_end(self._commit_and_announce(change))
        except (Conflict, RequestRepeated, DomainError) as error:
            log.debug("not together", ride_id=ride_id, error=str(error))
            return None

    async def decided(self, wanted: Wanted, event: Event, *, fresh: bool) -> tuple[Ride, Decision]:
        """The ride and what the event makes of it, by what is remembered, or `fresh` from PostgreSQL.

        A refusal, and that nothing changes, are said by PostgreSQL only. Raises what `decide` and the store raise.
        """
        known = None if fresh else wanted.recall()
        if known is not None:
            try:
                wanted.check(known)
                decision = self.decide(known, event)
            except DomainError as error:
                log.debug("refused by what is remembered", ride_id=known.ride_id, reason=error.reason)
            else:
                if decision.ride is not known:
                    return known, decision
        ride = await wanted.read()
        self.remembered.put(ride)
        wanted.check(ride)
        return ride, self.decide(ride, event)

    @asynccontextmanager
    async def _turn(self, ride_id: str) -> AsyncIterator[None]:
        """One change of a ride after the other in this process: those that come together need not conflict."""
        if not ride_id:
            yield
            return
        lock, waiting = self._turns.get(ride_id, (asyncio.Lock(), 0))
        self._turns[ride_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(ride_id)
            if waiting > 1:
                self._turns[ride_id] = (lock, waiting - 1)

    def ride(self, ride_id: str, check: Callable[[Ride], None] = lambda _ride: None) -> Wanted:
        """How a change finds the ride of this id."""
        return Wanted(lambda: self.remembered.ride(ride_id), lambda: self._rides.ride(ride_id), check)

    def ride_of_offer(self, offer_id: str, check: Callable[[Ride], None] = lambda _ride: None) -> Wanted:
        """How a change finds the ride that this offer is for."""
        return Wanted(lambda: self.remembered.ride_of_offer(offer_id), lambda: self._rides.ride_of_offer(offer_id), check)

    def decide(self, ride: Ride, event: Event) -> Decision:
        """What does the event make of the ride, now?"""
        return decide(ride, event, self._clock.now_ms(), self._params[ride.city_id])

    async def commit(
        self,
        before: Ride | None,
        decision: Decision,
        actor: str,
        request: RequestKey | None = None,
        answer: Callable[[Ride], bytes] | None = None,
        consideration: Consideration | None = None,
        restores: bool = False,
    ) -> Ride:
        """Makes one decision true and tells everyone. Raises Conflict and what the store raises; then nothing has changed."""
        told = answer(decision.ride) if answer else b""
        leased_until_ms = self.lease(decision.ride)
        change = Change(before, decision, actor, request, told, consideration, restores, leased_until_ms=leased_until_ms)
        return await self.to_the_end(self._commit_and_announce(change))

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work that goes on although its caller has gone: what is committed must also be told."""
        task = self._start(work)
        task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _commit_and_announce(self, change: Change) -> Ride:
        before, ride = change.before, change.decision.ride
        try:
            touched = await self._rides.commit(change)
        except Conflict:
            self.remembered.forget(ride.ride_id)
            raise
        self.remembered.put(ride)
        if before is None or before.state is not ride.state:
            driver_id = ride.assignment.driver_id if ride.assignment else None
            log.info("ride", ride_id=ride.ride_id, state=ride.state, driver_id=driver_id, actor=change.actor)
        self._announce(before, ride, touched)
        self.on_change(ride, change.leased_until_ms > 0)
        return ride

    async def leave(self, ride: Ride, request: RequestKey | None, answer: Callable[[Ride], bytes] | None) -> Ride:
        """The ride as it is, where a request makes no difference; what it is told is kept for its repeats all the same."""
        if request is not None and answer is not None:
            await self._rides.keep_answer(request, answer(ride), self._clock.now_ms())
        return ride

    async def close(self) -> None:
        """Waits for what is still being told."""
        while self._background:  # what ends may have more to tell
            await asyncio.gather(*self._background, return_exceptions=True)

    def _announce(self, before: Ride | None, ride: Ride, touched: list[Driver]) -> None:
        known = set(before.offers) if before else set()
        changed = [offer for offer in ride.offers if offer not in known]
        subjects = [ride.ride_id, *(offers_subject(ride.city_id, offer.driver_id) for offer in changed)]
        self._notices.publish(ride.city_id, subjects, ride)
        closed = [offer.driver_id for offer in changed if offer.state is not OfferState.LIVE]
        if closed:
            self._later(self._release(ride, closed))
        if touched:
            self._later(self._teller.tell(touched))

    async def _release(self, ride: Ride, driver_ids: Sequence[str]) -> None:
        try:
            await self._claims.release_drivers(ride.city_id, driver_ids, ride.ride_id)
        except DomainError as error:
            log.warning("claims left to expire", reason=error.reason, ride_id=ride.ride_id)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._start(work).add_done_callback(_logged)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _retrieved(task: asyncio.Task[Any]) -> None:
    """Its error is told to whoever waits; where nobody does any more, the change has not come about, and that is all."""
    if not task.cancelled() and task.exception() is not None:
        log.debug("a change has not come about", error=str(task.exception()))


def _logged(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it: a failure is a defect that only the log can tell."""
    if not task.cancelled() and task.exception() is not None:
        log.error("telling failed", exc_info=task.exception())
