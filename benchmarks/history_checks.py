"""Was everything that clients were told true, and is nothing left lying? A history against what PostgreSQL holds. Pure.

Our choice: decision 31 of docs/decisions says what each kind of violation means and what it cannot see.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.history import ASSIGNED, FINAL, OK, UNKNOWN, Call, Course, courses, in_order, presence
from simulator.witness import Interval, bindings, overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.history import Answered, Ending, History, OfferRow, RideRow, Told


_RIDERS_CALLS = frozenset({Call.REQUEST, Call.CANCEL})
_GIVEN = "it named what it was given"
_NEVER_RIGHT = {
    "INTERNAL": "no client can cause that",
    "REQUEST_ID_REUSED": "every request has an id of its own",
    "RIDE_NOT_FOUND": _GIVEN,
    "OFFER_NOT_FOUND": _GIVEN,
    "DRIVER_NOT_FOUND": _GIVEN,
    "QUOTE_ALTERED": _GIVEN,
}


class Kind(StrEnum):
    """What can be wrong."""

    DOUBLE_ASSIGNMENT = "DOUBLE_ASSIGNMENT"
    """A ride with two drivers, or a driver with two rides, and no release between."""
    LOST = "LOST"
    """A client was told what PostgreSQL does not hold."""
    CONTRADICTED = "CONTRADICTED"
    """Two clients were told different things of one version of a ride."""
    STUCK = "STUCK"
    """A ride is not final, and its deadline has long passed, or it has none."""
    NOT_FREE = "NOT_FREE"
    """A driver is bound to a ride that is not its own, or holds an offer of a ride that offers nothing."""
    NOT_BOUND = "NOT_BOUND"
    """A ride is driven by a driver who is not bound to it, or offered to nobody."""
    UNTOLD = "UNTOLD"
    """A client that still listens was not told of an end."""
    SPURIOUS = "SPURIOUS"
    """A refusal for a reason that was not so."""
    OFFERED_AGAIN = "OFFERED_AGAIN"
    """A ride was offered to a driver who had declined it or given it back."""
    LOG = "LOG"
    """The event log skips a version or one of its events, or ends elsewhere than its ride."""
    DEFECT = "DEFECT"
    """A service said that it has a defect."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One thing that is wrong."""

    kind: Kind
    ride_id: str
    driver_id: str
    what: str


@dataclass(frozen=True, slots=True)
class CheckParams:
    """How lenient is the checker with time?

    overdue_ms : so long may a ride's deadline have passed
    commit_ms : so long may it take from a decision, which names its time, until others see it
    """

    overdue_ms: int = 5_000
    commit_ms: int = 15_000


def violations(history: History, ending: Ending, params: CheckParams | None = None) -> list[Violation]:
    """What is wrong, sorted; empty where nothing is. Independent of the order of rows, and of words heard at one time."""
    check = _Check(history, ending, params or CheckParams())
    return sorted(set(check.all()))


class _Check:
    def __init__(self, history: History, ending: Ending, params: CheckParams) -> None:
        self.history = history
        self.ending = ending
        self.params = params
        self.rides: dict[str, RideRow] = {ride.ride_id: ride for ride in ending.rides}
        self.offers: dict[str, OfferRow] = {offer.offer_id: offer for offer in ending.offers}
        self.courses: dict[str, Course] = courses(ending.log)
        self.presence = presence(ending.log)
        self.suspended_ms: dict[str, list[int]] = defaultdict(list)
        for event in ending.log:
            if event.kind == "DRIVER_SUSPENDED":
                self.suspended_ms[event.aggregate_id].append(event.at_ms)
        self.logged = bindings(
            (event.aggregate_id, event.at_ms, event.driver_id, event.kind == "ASSIGNMENT_BEGAN")
            for event in in_order(ending.log)
            if event.kind in {"ASSIGNMENT_BEGAN", "ASSIGNMENT_ENDED"}
        )
        self.bound_to_ride: dict[str, list[Interval]] = defaultdict(list)
        self.bound_driver: dict[str, list[Interval]] = defaultdict(list)
        for interval in self.logged:
            self.bound_to_ride[interval.ride_id].append(interval)
            self.bound_driver[interval.driver_id].append(interval)
        self.told: dict[str, list[Told]] = defaultdict(list)
        for word in history.told:
            self.told[word.ride_id].append(word)
        for words in self.told.values():
            words.sort(key=lambda word: (word.version, word.heard_ms, word.to))
        self._judges: dict[str, Callable[[Answered], str]] = {
            "ALREADY_TAKEN": self._wrongly_taken,
            "OFFER_CLOSED": self._wrongly_closed,
            "DRIVER_BUSY": self._wrongly_busy,
            "DRIVER_OFFLINE": self._wrongly_offline,
            "DRIVER_SUSPENDED": self._wrongly_suspended,
            "RIDER_BUSY": self._wrong_request,
            "QUOTE_USED": self._wrong_request,
            "ILLEGAL_TRANSITION": self._wrong_move,
            "NOT_YOURS": self._wrong_move,
        }

    def all(self) -> Iterator[Violation]:
        yield from self.double_assignments()
        yield from self.lost_words()
        yield from self.lost_answers()
        yield from self.contradictions()
        yield from self.stuck()
        yield from self.drivers()
        yield from self.live_offers()
        yield from self.untold()
        yield from self.refusals()
        yield from self.offered_again()
        yield from self.log()

    def double_assignments(self) -> Iterator[Violation]:
        for overlap in overlaps([*self.logged, *self._told_only()]):
            bound = overlap.second
            what = "the ride had another driver" if overlap.of_ride else "the driver had another ride"
            yield Violation(Kind.DOUBLE_ASSIGNMENT, bound.ride_id, bound.driver_id, f"{what} at {bound.begin_ms}")
        for ride_id, words in self.told.items():
            named = [word for word in words if word.state in ASSIGNED and word.driver_id]
            for first, second in pairwise(named):
                if first.driver_id != second.driver_id and not self._released(first, second):
                    what = (
                        f"was told the ride of {first.driver_id}: versions {first.version}, {second.version}, no release between"
                    )
                    yield Violation(Kind.DOUBLE_ASSIGNMENT, ride_id, second.driver_id, what)

    def _told_only(self) -> list[Interval]:
        """Bindings that clients were told of and that the log does not hold."""
        known = {(interval.ride_id, interval.driver_id) for interval in self.logged}
        found: dict[tuple[str, str, int], Interval] = {}
        for ride_id, words in self.told.items():
            for word in words:
                key = (ride_id, word.driver_id, word.accepted_at_ms)
                if word.state not in ASSIGNED or (ride_id, word.driver_id) in known or key in found:
                    continue
                later = [w.heard_ms for w in words if w.version > word.version and w.state not in ASSIGNED]
                found[key] = Interval(word.accepted_at_ms, ride_id, word.driver_id, min(later, default=None))
        return list(found.values())

    def _released(self, first: Told, second: Told) -> bool:
        if any(first.version < w.version < second.version and w.state not in ASSIGNED for w in self.told[first.ride_id]):
            return True
        course = self.courses.get(first.ride_id)
        if course is None:
            return False
        between = [v for v in course.versions.values() if first.version < v.version < second.version]
        return any(version.driver_id != first.driver_id for version in between)

    def lost_words(self) -> Iterator[Violation]:
        for ride_id, words in self.told.items():
            ride, course = self.rides.get(ride_id), self.courses.get(ride_id)
            for word in words:
                if ride is None or course is None:
                    yield _lost(word, "PostgreSQL has no such ride")
                elif word.version > ride.version:
                    yield _lost(word, f"PostgreSQL has version {ride.version}")
                else:
                    yield from self._held(word, ride, course)

    @staticmethod
    def _held(word: Told, ride: RideRow, course: Course) -> Iterator[Violation]:
        held = course.versions.get(word.version)
        if held is None:
            yield _lost(word, "the log does not hold this version")
        elif held.state not in {None, word.state}:
            yield _lost(word, f"the log has it as {held.state}")
        elif held.driver_id != word.driver_id:
            yield _lost(word, f"the log has it with {held.driver_id or 'no driver'}")
        if word.version == ride.version and (word.state, word.driver_id) != (ride.state, ride.driver_id):
            yield _lost(word, f"PostgreSQL has it as {ride.state} with {ride.driver_id or 'no driver'}")

    def lost_answers(self) -> Iterator[Violation]:
        for answer in self.history.answers:
            if answer.outcome != OK:
                continue
            driver_id = answer.who
            if answer.call is Call.GIVE_BACK:
                ends = [i.end_ms for i in self.bound_to_ride[answer.ride_id] if i.driver_id == driver_id]
                if not ends or None in ends:
                    yield Violation(Kind.LOST, answer.ride_id, driver_id, "gave the ride back, and the log has no release")
            elif answer.call is Call.DECLINE:
                offer = self.offers.get(answer.offer_id)
                if offer is None or offer.state in {"LIVE", "ACCEPTED"}:
                    state = "not there" if offer is None else offer.state
                    yield Violation(Kind.LOST, answer.ride_id, driver_id, f"declined {answer.offer_id}, which is {state}")
            elif answer.call in {Call.ONLINE, Call.OFFLINE}:
                since = [at for at, online in self.presence[driver_id] if online == (answer.call is Call.ONLINE)]
                if not any(at <= answer.heard_ms for at in since):
                    yield Violation(Kind.LOST, "", driver_id, f"{answer.call} was acknowledged, and the log does not hold it")

    def contradictions(self) -> Iterator[Violation]:
        for ride_id, words in self.told.items():
            for first, second in pairwise(words):
                if first.version == second.version and (first.state, first.driver_id) != (second.state, second.driver_id):
                    what = (
                        f"version {first.version} was told as {_words(first)} to {first.to}, as {_words(second)} to {second.to}"
                    )
                    yield Violation(Kind.CONTRADICTED, ride_id, second.driver_id, what)

    def stuck(self) -> Iterator[Violation]:
        for ride in self.ending.rides:
            if ride.state in FINAL:
                continue
            if ride.next_deadline_ms is None:
                yield Violation(Kind.STUCK, ride.ride_id, ride.driver_id, f"is {ride.state} without a deadline")
            elif self.ending.now_ms - ride.next_deadline_ms > self.params.overdue_ms:
                late_s = (self.ending.now_ms - ride.next_deadline_ms) / 1000
                yield Violation(Kind.STUCK, ride.ride_id, ride.driver_id, f"is {ride.state}, and {late_s:.1f} s overdue")

    def drivers(self) -> Iterator[Violation]:
        bound = [row for row in self.ending.assignments if row.released_at_ms is None]
        of_ride: dict[str, set[str]] = defaultdict(set)
        count = Counter(row.driver_id for row in bound)
        for row in bound:
            of_ride[row.ride_id].add(row.driver_id)
            ride = self.rides.get(row.ride_id)
            if ride is None or ride.state not in ASSIGNED or ride.driver_id != row.driver_id:
                yield Violation(Kind.NOT_FREE, row.ride_id, row.driver_id, f"is bound to a ride that is {_standing(ride)}")
            if count[row.driver_id] > 1:
                what = f"is bound to {count[row.driver_id]} rides at the end"
                yield Violation(Kind.DOUBLE_ASSIGNMENT, row.ride_id, row.driver_id, what)
        for ride in self.ending.rides:
            if ride.state in ASSIGNED and of_ride[ride.ride_id] != {ride.driver_id}:
                names = ", ".join(sorted(of_ride[ride.ride_id])) or "nobody"
                yield Violation(Kind.NOT_BOUND, ride.ride_id, ride.driver_id, f"is {ride.state}, and bound to {names}")

    def live_offers(self) -> Iterator[Violation]:
        live = [offer for offer in self.ending.offers if offer.state == "LIVE"]
        offering = {offer.ride_id for offer in live}
        for offer in live:
            ride = self.rides.get(offer.ride_id)
            if ride is None or ride.state != "OFFERED":
                what = f"holds the live offer {offer.offer_id} of a ride that is {_standing(ride)}"
                yield Violation(Kind.NOT_FREE, offer.ride_id, offer.driver_id, what)
        for ride in self.ending.rides:
            if ride.state == "OFFERED" and ride.ride_id not in offering:
                yield Violation(Kind.NOT_BOUND, ride.ride_id, "", "is offered to nobody")

    def untold(self) -> Iterator[Violation]:
        for ride_id, rider_id in self.history.waiting.items():
            ride = self.rides.get(ride_id)
            if ride is not None and ride.state in FINAL:
                yield Violation(Kind.UNTOLD, ride_id, "", f"{rider_id} still waits, and the ride is {ride.state}")
        for offer_id, driver_id in self.history.showing.items():
            offer = self.offers.get(offer_id)
            if offer is not None and offer.state != "LIVE":
                yield Violation(Kind.UNTOLD, offer.ride_id, driver_id, f"still shows {offer_id}, which is {offer.state}")

    def refusals(self) -> Iterator[Violation]:
        for answer in self.history.answers:
            if answer.outcome in {OK, UNKNOWN}:
                continue
            wrong = self._wrong(answer)
            if wrong:
                driver_id = "" if answer.call in {Call.REQUEST, Call.CANCEL} else answer.who
                kind = Kind.DEFECT if answer.outcome == "INTERNAL" else Kind.SPURIOUS
                yield Violation(
                    kind, answer.ride_id, driver_id, f"{answer.call} of {answer.who}: {answer.outcome}, though {wrong}"
                )

    def _wrong(self, answer: Answered) -> str:
        """Why the refusal was not right; empty where it was, or where nobody can tell."""
        judge = self._judges.get(answer.outcome)
        return _NEVER_RIGHT.get(answer.outcome, "") if judge is None else judge(answer)

    def _wrongly_taken(self, answer: Answered) -> str:
        ride = self.rides.get(answer.ride_id)
        others = [i for i in self.bound_to_ride[answer.ride_id] if i.driver_id != answer.who]
        # Who had the ride when it ended is its driver for ever.
        last = [i for i in others if ride is not None and ride.driver_id == i.driver_id and i.begin_ms <= answer.heard_ms]
        return "" if last or self._bound(others, answer) else "nobody else had the ride"

    def _wrongly_closed(self, answer: Answered) -> str:
        course = self.courses.get(answer.ride_id)
        closed_ms = course.closed_ms.get(answer.offer_id) if course is not None else None
        return "" if closed_ms is not None and closed_ms <= answer.heard_ms else "the offer was live"

    def _wrongly_busy(self, answer: Answered) -> str:
        return "" if self._bound(self.bound_driver[answer.who], answer) else "the driver was on no ride"

    def _wrongly_offline(self, answer: Answered) -> str:
        changes = [(at, online) for at, online in self.presence[answer.who] if at <= answer.heard_ms]
        before = [online for at, online in changes if at < answer.asked_ms - self.params.commit_ms]
        within = [online for at, online in changes if at >= answer.asked_ms - self.params.commit_ms]
        return "the driver was online" if before and before[-1] and all(within) else ""

    def _wrongly_suspended(self, answer: Answered) -> str:
        return "" if any(at <= answer.heard_ms for at in self.suspended_ms[answer.who]) else "the driver was never suspended"

    def _wrong_request(self, answer: Answered) -> str:
        return "the rider had asked for no other ride" if answer.call is Call.REQUEST else ""

    def _bound(self, intervals: Iterable[Interval], answer: Answered) -> bool:
        earliest_end_ms = answer.asked_ms - self.params.commit_ms
        return any(
            interval.begin_ms <= answer.heard_ms and (interval.end_ms is None or interval.end_ms >= earliest_end_ms)
            for interval in intervals
        )

    def _wrong_move(self, answer: Answered) -> str:
        """A driver's own ride may refuse its next step once it was taken away; a rider's may not be cancelled once begun."""
        if answer.call is Call.CANCEL:
            course = self.courses.get(answer.ride_id)
            reached = course.versions.values() if course is not None else ()
            states = {version.state for version in reached if version.at_ms <= answer.heard_ms}
            return "" if states & (FINAL | {"IN_PROGRESS"}) else "the ride had not begun"
        if answer.call not in {Call.ARRIVE, Call.START, Call.COMPLETE, Call.GIVE_BACK}:
            return ""
        mine = [i for i in self.bound_to_ride[answer.ride_id] if i.driver_id == answer.who]
        ended = [i for i in mine if i.end_ms is not None and i.end_ms <= answer.heard_ms]
        return "the ride was its own" if mine and not ended else ""

    def offered_again(self) -> Iterator[Violation]:
        for course in self.courses.values():
            for offer_id, (driver_id, made_ms) in course.made.items():
                if any(driver == driver_id and at_ms < made_ms for driver, at_ms in course.declined):
                    what = f"{offer_id} was made after a decline"
                    yield Violation(Kind.OFFERED_AGAIN, course.ride_id, driver_id, what)

    def log(self) -> Iterator[Violation]:
        for ride in self.ending.rides:
            course = self.courses.get(ride.ride_id)
            held = set(course.versions) if course is not None else set()
            missing = sorted(set(range(1, ride.version + 1)) - held)
            if missing:
                yield Violation(Kind.LOG, ride.ride_id, "", f"the log has no event of versions {missing}")
            short = sorted(v for v, count in course.said.items() if course.held[v] < count) if course is not None else []
            if short:
                yield Violation(Kind.LOG, ride.ride_id, "", f"the log has not all events of versions {short}")
            if course is not None and max(held) > ride.version:
                yield Violation(Kind.LOG, ride.ride_id, "", f"the log has version {max(held)}, the ride {ride.version}")
            last = course.versions.get(ride.version) if course is not None else None
            if last is not None and last.state not in {None, ride.state}:
                yield Violation(Kind.LOG, ride.ride_id, "", f"the log ends with {last.state}, the ride is {ride.state}")


def _standing(ride: RideRow | None) -> str:
    return "not there" if ride is None else f"{ride.state} with {ride.driver_id or 'no driver'}"


def _words(word: Told) -> str:
    return f"{word.state} with {word.driver_id or 'no driver'}"


def _lost(word: Told, instead: str) -> Violation:
    what = f"{word.to} was told {_words(word)} at version {word.version}: {instead}"
    return Violation(Kind.LOST, word.ride_id, word.driver_id, what)
