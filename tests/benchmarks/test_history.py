"""The checker of histories: it finds nothing in what is right, and each kind of wrong in what is made wrong by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ending_wire import logged_of
from benchmarks.history import OK, Answered, AssignmentRow, Call, Ending, History, OfferRow, RideRow, Told, deadlines_late_ms
from benchmarks.history_checks import CheckParams, Kind, violations
from hexhail.api.events.v1 import event_pb2
from hexhail.kernel.errors import DomainError
from hexhail.kernel.ids import DriverId, OfferId, RideId, RiderId
from matching.events_wire import encode_ride_events
from matching.model import (
    ASSIGNED,
    FINAL,
    DeadlinePassed,
    Decision,
    DriverArrived,
    DriverCancelled,
    Fact,
    FactKind,
    OfferAccepted,
    OfferDeclined,
    OfferShown,
    OffersPlanned,
    OfferState,
    PlannedOffer,
    RideCompleted,
    RiderCancelled,
    RideStarted,
    RideState,
)
from matching.offers import OfferParams, decide
from matching.store import Change
from tests.matching.rides import NOW_MS, searching

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.history import Logged
    from matching.model import Event, Ride

PARAMS = OfferParams(search_limit_s=3_600.0)
LATE_MS = 60_000


def logged(change: Change) -> list[Logged]:
    """What the log holds of a change."""
    rows = []
    for kind, envelope in encode_ride_events(change):
        read = event_pb2.Envelope.FromString(envelope)
        place = {"aggregate_id": read.aggregate_id, "version": read.version, "index": read.index, "at_ms": read.at_ms}
        rows.append(logged_of({**place, "kind": kind, "envelope": envelope}))
    return rows


class Book:
    """One ride, its log, and its clients, who are told of every version."""

    def __init__(self, name: str = "gridport-r1", at_ms: int = NOW_MS) -> None:
        begun = replace(searching(), ride_id=RideId(name), rider_id=RiderId(f"rider of {name}"))
        self.ride: Ride = replace(begun, requested_at_ms=at_ms, updated_at_ms=at_ms, search_began_at_ms=at_ms)
        self.at_ms = at_ms
        self.log = logged(Change(None, Decision(self.ride, (Fact(FactKind.RIDE_REQUESTED),)), "rider"))
        self.told = [self.word()]
        self.answers: list[Answered] = []
        self.bound: list[AssignmentRow] = []
        self.offers = 0

    def word(self, to: str = "rider") -> Told:
        """What a client is told now."""
        bound = self.ride.assignment
        driver_id, accepted_ms = ("", 0) if bound is None else (str(bound.driver_id), bound.accepted_at_ms)
        return Told(to, self.ride.ride_id, self.ride.version, self.ride.state.value, driver_id, accepted_ms, self.at_ms)

    def happen(self, event: Event) -> Book:
        """A second later, this happens. Raises DomainError where it cannot."""
        self.at_ms += 1_000
        before = self.ride
        decision = decide(before, event, self.at_ms, PARAMS)
        if decision.ride is before:
            return self
        self.ride = decision.ride
        self.log += logged(Change(before, decision, "somebody"))
        self.told.append(self.word())
        for fact in decision.facts:
            if fact.kind is FactKind.ASSIGNMENT_BEGAN:
                self.bound.append(AssignmentRow(before.ride_id, fact.driver_id, self.at_ms, None))
            elif fact.kind is FactKind.ASSIGNMENT_ENDED:
                self.bound[-1] = replace(self.bound[-1], released_at_ms=self.at_ms)
        return self

    def offer(self, *driver_ids: str) -> Book:
        """It is offered to these drivers, who have not had it before."""
        planned = []
        for driver_id in driver_ids:
            self.offers += 1
            planned.append(PlannedOffer(OfferId(f"{self.ride.ride_id}-o{self.offers}"), DriverId(driver_id), 60, 500))
        return self.happen(OffersPlanned(self.ride.phase + 1, tuple(planned)))

    def offer_of(self, driver_id: str) -> str:
        """The driver's newest offer."""
        return [offer.offer_id for offer in self.ride.offers if offer.driver_id == driver_id][-1]

    def accept(self, driver_id: str) -> Book:
        """The driver has it."""
        return self.happen(OfferAccepted(self.offer_of(driver_id)))

    def asked(self, who: str, call: Call, outcome: str = OK, after_ms: int = 0, offer_id: str = "") -> Book:
        """Somebody asks for something now, and is answered so a little later."""
        asked_ms = self.at_ms + after_ms
        self.answers.append(Answered(who, call, outcome, asked_ms, asked_ms + 20, self.ride.ride_id, offer_id))
        return self


def ended(*books: Book, **changed: object) -> tuple[History, Ending]:
    """What clients were told of these rides, and what PostgreSQL holds of them, or of the fields named in their place."""
    history = History(
        told=[word for book in books for word in book.told], answers=[answer for book in books for answer in book.answers]
    )
    rides = [book.ride for book in books]
    ending = Ending(
        now_ms=max(book.at_ms for book in books),
        rides=tuple(
            RideRow(
                ride.ride_id,
                ride.rider_id,
                ride.state.value,
                ride.version,
                ride.next_deadline_ms,
                ride.assignment.driver_id if ride.assignment else "",
            )
            for ride in rides
        ),
        offers=tuple(OfferRow(o.offer_id, ride.ride_id, o.driver_id, o.state.value) for ride in rides for o in ride.offers),
        assignments=tuple(row for book in books for row in book.bound),
        log=tuple(event for book in books for event in book.log),
    )
    return history, replace(ending, **changed)  # type: ignore[arg-type]


def kinds(history: History, ending: Ending) -> set[Kind]:
    return {violation.kind for violation in violations(history, ending)}


def completed(name: str = "gridport-r1", driver_id: str = "d1", at_ms: int = NOW_MS) -> Book:
    """A ride from its request to its end, with all that its driver was answered."""
    book = Book(name, at_ms).offer(driver_id, f"other of {name}").accept(driver_id).asked(driver_id, Call.ACCEPT)
    for event, call in (
        (DriverArrived(driver_id), Call.ARRIVE),
        (RideStarted(driver_id), Call.START),
        (RideCompleted(driver_id), Call.COMPLETE),
    ):
        book.happen(event).asked(driver_id, call)
    return book


def accepted(driver_id: str = "d1") -> Book:
    return Book().offer("d1", "d2").accept(driver_id)


def test_nothing_is_wrong_with_a_ride_that_everybody_was_told_of() -> None:
    assert violations(*ended(completed(), completed("gridport-r2", at_ms=NOW_MS + LATE_MS))) == []


def test_a_ride_given_back_and_driven_by_another_is_no_double_assignment() -> None:
    book = accepted().happen(DriverCancelled("d1")).asked("d1", Call.GIVE_BACK).offer("d3").accept("d3")
    assert violations(*ended(book)) == []
    book.told = [word for word in book.told if word.state not in {"SEARCHING", "OFFERED"}]
    assert violations(*ended(book)) == [], "the log knows of the release, though no client was told"


def test_two_drivers_told_that_one_ride_is_theirs() -> None:
    book = accepted()
    rival = replace(book.told[-1], to="d2", driver_id="d2")
    book.told.append(rival)
    assert kinds(*ended(book)) >= {Kind.DOUBLE_ASSIGNMENT, Kind.CONTRADICTED, Kind.LOST}


def test_a_second_driver_in_a_later_version_without_a_release_between() -> None:
    book = accepted()
    book.told.append(replace(book.told[-1], to="d2", driver_id="d2", version=book.ride.version + 1))
    found = [v for v in violations(*ended(book)) if v.kind is Kind.DOUBLE_ASSIGNMENT]
    assert {v.driver_id for v in found} == {"d2"}


def test_a_log_in_which_a_ride_begins_with_two_drivers() -> None:
    book = accepted()
    (began,) = [event for event in book.log if event.kind == "ASSIGNMENT_BEGAN"]
    twice = (*book.log, replace(began, driver_id="d2", at_ms=began.at_ms + 1))
    assert Kind.DOUBLE_ASSIGNMENT in kinds(*ended(book, log=twice))


def test_a_driver_on_two_rides_at_once_by_the_log_and_at_the_end() -> None:
    one, other = Book("gridport-r1").offer("d1").accept("d1"), Book("gridport-r2").offer("d1").accept("d1")
    found = [v for v in violations(*ended(one, other)) if v.kind is Kind.DOUBLE_ASSIGNMENT]
    assert {v.what.split(" at ")[0] for v in found} == {"the driver had another ride", "is bound to 2 rides"}


def test_a_driver_told_of_two_rides_of_which_the_log_holds_one() -> None:
    one, other = Book("gridport-r1").offer("d1").accept("d1"), Book("gridport-r2").offer("d1").accept("d1")
    history, ending = ended(one, other)
    log = tuple(e for e in ending.log if (e.aggregate_id, e.kind) != ("gridport-r2", "ASSIGNMENT_BEGAN"))
    assert kinds(history, replace(ending, log=log)) >= {Kind.DOUBLE_ASSIGNMENT, Kind.LOST, Kind.LOG}


def test_a_ride_that_was_acknowledged_and_is_not_there() -> None:
    book = Book()
    assert kinds(*ended(book, rides=(), log=())) == {Kind.LOST}


def test_a_state_that_was_told_and_then_taken_back() -> None:
    book = accepted()
    forgotten = Book().offer("d1", "d2")
    forgotten.told.append(book.told[-1])
    assert Kind.LOST in kinds(*ended(forgotten))


@pytest.mark.parametrize("changed", [{"state": "ARRIVED"}, {"driver_id": "d9"}, {"version": 99}])
def test_a_word_with_another_content_than_what_is_held(changed: dict[str, object]) -> None:
    book = completed()
    book.told[2] = replace(book.told[2], **changed)  # type: ignore[arg-type]
    assert Kind.LOST in kinds(*ended(book))


def test_a_version_that_was_told_and_is_missing_from_the_log() -> None:
    book = completed()
    version = book.told[3].version
    assert kinds(*ended(book, log=tuple(e for e in book.log if e.version != version))) >= {Kind.LOST, Kind.LOG}


def test_a_version_that_nobody_was_told_of_may_not_be_missing_either() -> None:
    book = completed()
    missing = book.told.pop(2)
    assert Kind.LOG in kinds(*ended(book, log=tuple(e for e in book.log if e.version != missing.version)))


def test_two_words_about_one_version() -> None:
    book = completed()
    book.told.append(replace(book.told[1], to="d1", state="EXPIRED"))
    assert Kind.CONTRADICTED in kinds(*ended(book))


def test_a_decline_that_was_acknowledged_and_an_offer_that_is_live_all_the_same() -> None:
    book = Book().offer("d1", "d2")
    book.asked("d1", Call.DECLINE, offer_id=book.offer_of("d1"))
    assert kinds(*ended(book)) == {Kind.LOST}


def test_a_ride_given_back_with_no_release_in_the_log() -> None:
    assert kinds(*ended(accepted().asked("d1", Call.GIVE_BACK))) == {Kind.LOST}


def test_a_driver_told_to_be_online_of_whom_the_log_knows_nothing() -> None:
    assert kinds(*ended(Book().asked("d1", Call.ONLINE))) == {Kind.LOST}


def test_a_ride_without_a_deadline_or_long_overdue_is_stuck_and_one_that_waits_is_not() -> None:
    book = accepted()
    history, ending = ended(book)
    (ride,) = ending.rides
    assert ride.next_deadline_ms is not None
    assert violations(history, replace(ending, now_ms=ride.next_deadline_ms)) == []
    assert kinds(history, replace(ending, rides=(replace(ride, next_deadline_ms=None),))) == {Kind.STUCK}
    late = replace(ending, now_ms=ride.next_deadline_ms + CheckParams().overdue_ms + 1)
    assert kinds(history, late) == {Kind.STUCK}


def test_a_driver_bound_to_a_ride_that_has_ended() -> None:
    book = completed()
    row = replace(book.bound[0], released_at_ms=None)
    assert kinds(*ended(book, assignments=(row,))) == {Kind.NOT_FREE}


def test_a_ride_under_way_whose_driver_is_not_bound() -> None:
    assert kinds(*ended(accepted(), assignments=())) == {Kind.NOT_BOUND}


def test_a_live_offer_of_a_ride_that_has_ended_and_a_ride_offered_to_nobody() -> None:
    book = completed()
    offers = tuple(OfferRow(o.offer_id, book.ride.ride_id, o.driver_id, "LIVE") for o in book.ride.offers)
    assert kinds(*ended(book, offers=offers)) == {Kind.NOT_FREE}
    assert kinds(*ended(Book().offer("d1"), offers=())) == {Kind.NOT_BOUND}


def test_a_rider_who_waits_for_a_ride_that_has_ended_and_a_phone_that_shows_a_dead_offer() -> None:
    book = completed()
    history, ending = ended(book)
    history.waiting[book.ride.ride_id] = book.ride.rider_id
    assert kinds(history, ending) == {Kind.UNTOLD}
    history.waiting.clear()
    history.showing[book.offer_of("d1")] = "d1"
    assert kinds(history, ending) == {Kind.UNTOLD}


def test_already_taken_is_right_only_if_another_has_the_ride() -> None:
    book = Book().offer("d1", "d2")
    book.asked("d2", Call.ACCEPT, "ALREADY_TAKEN", offer_id=book.offer_of("d2"))
    assert kinds(*ended(book)) == {Kind.SPURIOUS}
    book.answers.clear()
    book.accept("d1").asked("d2", Call.ACCEPT, "ALREADY_TAKEN", offer_id=book.offer_of("d2"))
    assert violations(*ended(book)) == []
    book.happen(DriverCancelled("d1")).asked("d2", Call.ACCEPT, "ALREADY_TAKEN", LATE_MS, book.offer_of("d2"))
    assert kinds(*ended(book)) == {Kind.SPURIOUS}


def test_already_taken_is_not_said_to_the_driver_who_has_the_ride() -> None:
    book = accepted()
    book.asked("d1", Call.ACCEPT, "ALREADY_TAKEN", offer_id=book.offer_of("d1"))
    assert kinds(*ended(book)) == {Kind.SPURIOUS}


def test_offer_closed_is_right_only_once_the_offer_is() -> None:
    book = Book().offer("d1", "d2")
    book.asked("d1", Call.ACCEPT, "OFFER_CLOSED", offer_id=book.offer_of("d1"))
    assert kinds(*ended(book)) == {Kind.SPURIOUS}
    book.answers.clear()
    book.happen(RiderCancelled()).asked("d1", Call.ACCEPT, "OFFER_CLOSED", offer_id=book.offer_of("d1"))
    assert violations(*ended(book)) == []


def test_a_driver_is_busy_only_while_on_a_ride() -> None:
    book = accepted()
    book.asked("d2", Call.ACCEPT, "DRIVER_BUSY", offer_id=book.offer_of("d2"))
    assert kinds(*ended(book)) == {Kind.SPURIOUS}
    book.answers.clear()
    book.asked("d1", Call.ACCEPT, "DRIVER_BUSY")
    assert violations(*ended(book)) == []


def went(driver_id: str, online: bool, at_ms: int) -> Logged:
    kind = "DRIVER_WENT_ONLINE" if online else "DRIVER_WENT_OFFLINE"
    return replace(Book().log[0], aggregate_id=driver_id, kind=kind, at_ms=at_ms, version=at_ms, state="")


def test_a_driver_is_offline_only_after_going_offline() -> None:
    book = Book().offer("d1")
    book.asked("d1", Call.ACCEPT, "DRIVER_OFFLINE", LATE_MS, book.offer_of("d1"))
    online = went("d1", True, NOW_MS - LATE_MS)
    assert kinds(*ended(book, log=(*book.log, online))) == {Kind.SPURIOUS}
    assert violations(*ended(book, log=(*book.log, online, went("d1", False, NOW_MS + LATE_MS)))) == []


@pytest.mark.parametrize("call", [Call.ARRIVE, Call.START, Call.COMPLETE, Call.GIVE_BACK])
def test_a_driver_whose_ride_it_is_may_go_on_with_it(call: Call) -> None:
    book = accepted().asked("d1", call, "NOT_YOURS")
    assert kinds(*ended(book)) == {Kind.SPURIOUS}
    book.answers.clear()
    assert violations(*ended(book.happen(RiderCancelled()).asked("d1", call, "ILLEGAL_TRANSITION"))) == []


def test_a_rider_may_cancel_until_the_ride_has_begun() -> None:
    book = accepted().asked("rider", Call.CANCEL, "ILLEGAL_TRANSITION")
    assert kinds(*ended(book)) == {Kind.SPURIOUS}
    book.answers.clear()
    book.happen(DriverArrived("d1")).happen(RideStarted("d1")).asked("rider", Call.CANCEL, "ILLEGAL_TRANSITION")
    assert violations(*ended(book)) == []


@pytest.mark.parametrize("reason", ["RIDER_BUSY", "QUOTE_USED", "REQUEST_ID_REUSED", "RIDE_NOT_FOUND"])
def test_a_rider_who_asks_once_is_not_refused_for_what_it_did_before(reason: str) -> None:
    assert kinds(*ended(Book().asked("rider", Call.REQUEST, reason))) == {Kind.SPURIOUS}


def test_a_defect_is_a_defect() -> None:
    assert kinds(*ended(Book().asked("rider", Call.CANCEL, "INTERNAL"))) == {Kind.DEFECT}


def test_a_ride_offered_again_to_whoever_declined_it_or_gave_it_back() -> None:
    declined = Book().offer("d1", "d2")
    declined.happen(OfferDeclined(declined.offer_of("d1"))).happen(OfferDeclined(declined.offer_of("d2"))).offer("d1")
    assert kinds(*ended(declined)) == {Kind.OFFERED_AGAIN}
    assert kinds(*ended(accepted().happen(DriverCancelled("d1")).offer("d1"))) == {Kind.OFFERED_AGAIN}


def test_a_log_that_goes_on_behind_its_ride() -> None:
    book = completed()
    beyond = replace(book.log[-1], version=book.ride.version + 1)
    assert kinds(*ended(book, log=(*book.log, beyond))) == {Kind.LOG}


def test_a_log_that_holds_only_some_of_a_versions_events() -> None:
    book = completed()
    (ended_ride,) = [event for event in book.log if event.kind == "RIDE_COMPLETED"]
    assert ended_ride.version_events > 1
    assert kinds(*ended(book, log=tuple(event for event in book.log if event is not ended_ride))) == {Kind.LOG}


def test_an_event_that_does_not_say_where_the_ride_stands_contradicts_nobody() -> None:
    book = completed()
    assert violations(*ended(book, log=tuple(replace(event, state="") for event in book.log))) == []


def test_how_late_offers_expired() -> None:
    book = Book().offer("d1")
    deadline_ms = book.ride.next_deadline_ms
    assert deadline_ms is not None
    book.at_ms = deadline_ms + 700 - 1_000
    book.happen(DeadlinePassed())
    assert deadlines_late_ms(book.log) == [700]


EVENTS: list[Callable[[Book, str], Event]] = [
    lambda book, driver: OfferShown(book.offer_of(driver)),
    lambda book, driver: OfferAccepted(book.offer_of(driver)),
    lambda book, driver: OfferDeclined(book.offer_of(driver)),
    lambda _, driver: DriverCancelled(driver),
    lambda _, driver: DriverArrived(driver),
    lambda _, driver: RideStarted(driver),
    lambda _, driver: RideCompleted(driver),
    lambda _, __: RiderCancelled(),
    lambda _, __: DeadlinePassed(),
]


@st.composite
def lives(draw: st.DrawFn) -> Book:
    """A ride to which anything happens that can, by the rules themselves; its clients are told some of it."""
    book, fresh = Book(), 0
    for step in draw(st.lists(st.integers(-3, len(EVENTS) - 1), max_size=25)):
        if step < 0 and book.ride.state is RideState.SEARCHING:
            book.offer(*(f"d{fresh + n}" for n in range(-step)))
            fresh += -step
        elif step >= 0 and book.ride.offers:
            driver_id = draw(st.sampled_from(book.ride.offers)).driver_id
            if step == len(EVENTS) - 1 and book.ride.next_deadline_ms is not None:
                book.at_ms = max(book.at_ms, book.ride.next_deadline_ms - draw(st.integers(0, 2_000)))
            try:
                book.happen(EVENTS[step](book, driver_id))
            except DomainError:
                continue
    heard = draw(st.lists(st.booleans(), min_size=len(book.told), max_size=len(book.told)))
    book.told = [word for word, was in zip(book.told, heard, strict=True) if was]
    return book


@given(lives())
def test_what_the_rules_themselves_made_is_right(book: Book) -> None:
    assert violations(*ended(book)) == []


@given(lives().filter(lambda book: book.told), st.data())
def test_no_word_can_be_changed_unnoticed(book: Book, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(book.told) - 1))
    word = book.told[index]
    state = data.draw(st.sampled_from([s.value for s in RideState if s.value != word.state]))
    book.told[index] = data.draw(st.sampled_from([replace(word, state=state), replace(word, driver_id=f"not {word.driver_id}")]))
    assert kinds(*ended(book)) & {Kind.LOST, Kind.CONTRADICTED}


@given(lives())
def test_no_row_can_be_changed_unnoticed(book: Book) -> None:
    history, ending = ended(book)
    (ride,) = ending.rides
    other = "COMPLETED" if ride.state != "COMPLETED" else "EXPIRED"
    assert violations(history, replace(ending, rides=(replace(ride, state=other),)))
    if book.ride.state not in FINAL:
        assert Kind.STUCK in kinds(history, replace(ending, rides=(replace(ride, next_deadline_ms=None),)))
    if book.ride.state in ASSIGNED:
        assert Kind.NOT_BOUND in kinds(history, replace(ending, assignments=()))
    if any(offer.state is OfferState.LIVE for offer in book.ride.offers):
        assert Kind.NOT_BOUND in kinds(history, replace(ending, offers=()))
