"""The circuit breaker, as a state machine on a clock passed in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from routing.breaker import Breaker, BreakerParams, Outcome, State

PARAMS = BreakerParams(failures=3, pause_s=10.0)


def failed(times: int, now_ms: int = 0) -> Breaker:
    breaker = Breaker(PARAMS)
    for _ in range(times):
        breaker = breaker.reported(Outcome.FAILED, breaker.term, now_ms)
    return breaker


def test_so_many_failures_in_a_row_open_it_and_a_success_between_starts_anew() -> None:
    assert failed(2).state is State.CLOSED
    assert failed(3).state is State.OPEN

    recovered = failed(2).reported(Outcome.ANSWERED, 0, 0)
    assert recovered.reported(Outcome.FAILED, 0, 0).reported(Outcome.FAILED, 0, 0).state is State.CLOSED


def test_after_the_pause_one_may_try_and_nobody_beside() -> None:
    opened = failed(3, now_ms=1_000)
    assert not opened.lets_in(10_999)
    assert opened.lets_in(11_000)

    trial = opened.entered(11_000)
    assert trial.state is State.HALF_OPEN
    assert not trial.lets_in(11_000)
    assert not trial.lets_in(20_999)


def test_the_trial_closes_it_or_opens_it_again() -> None:
    trial = failed(3).entered(10_000)

    assert trial.reported(Outcome.ANSWERED, trial.term, 10_100).state is State.CLOSED
    again = trial.reported(Outcome.FAILED, trial.term, 10_100)
    assert again.state is State.OPEN
    assert not again.lets_in(20_099)
    assert again.lets_in(20_100)


def test_a_trial_that_told_nothing_lets_the_next_one_try_at_once() -> None:
    trial = failed(3).entered(10_000)
    after = trial.reported(Outcome.UNKNOWN, trial.term, 10_100)

    assert after.state is State.OPEN
    assert after.lets_in(10_100)


def test_a_trial_that_is_never_reported_gives_way_after_a_pause() -> None:
    trial = failed(3).entered(10_000)
    assert trial.lets_in(20_000)

    second = trial.entered(20_000)
    assert second.reported(Outcome.FAILED, trial.term, 20_100) == second  # the first, at last
    assert second.reported(Outcome.ANSWERED, second.term, 20_200).state is State.CLOSED


def test_who_is_not_let_in_cannot_enter() -> None:
    with pytest.raises(ValueError, match="nobody is let in"):
        failed(3).entered(1)


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_unfit_figures_are_refused(failures: int, pause_s: float) -> None:
    with pytest.raises(ValueError, match=r"failures|pause_s"):
        BreakerParams(failures, pause_s)


@given(st.sampled_from(list(Outcome)), st.integers(0, 100))
def test_reports_of_an_earlier_term_change_nothing(outcome: Outcome, now_ms: int) -> None:
    for breaker in (failed(3), failed(3).entered(10_000), failed(2)):
        assert breaker.reported(outcome, breaker.term - 1, now_ms) == breaker


class Life(RuleBasedStateMachine):
    """Whatever is asked and reported in whatever order, held against what the rules say in words."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(PARAMS)
        self.now_ms = 0
        self.under_way: list[int] = []
        self.opened_ms: int | None = None
        self.in_a_row = 0

    @rule(ms=st.integers(0, 12_000))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def one_asks(self) -> None:
        if not self.breaker.lets_in(self.now_ms):
            assert self.breaker.state is not State.CLOSED
            return
        if self.opened_ms is not None and self.breaker.state is State.OPEN:
            assert self.now_ms >= self.opened_ms
        self.breaker = self.breaker.entered(self.now_ms)
        self.under_way.append(self.breaker.term)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def one_reports(self, data: st.DataObject, outcome: Outcome) -> None:
        term = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.breaker
        self.breaker = before.reported(outcome, term, self.now_ms)
        if term != before.term:
            assert self.breaker == before
            return
        if before.state is State.CLOSED:
            self.in_a_row = (
                self.in_a_row + 1 if outcome is Outcome.FAILED else 0 if outcome is Outcome.ANSWERED else self.in_a_row
            )
            assert (self.breaker.state is State.OPEN) == (self.in_a_row >= PARAMS.failures)
        else:
            assert self.breaker.state is (State.CLOSED if outcome is Outcome.ANSWERED else State.OPEN)
        if self.breaker.state is State.OPEN:
            self.opened_ms = self.now_ms + (0 if outcome is Outcome.UNKNOWN else 10_000)
        if self.breaker.state is not before.state:
            self.in_a_row = 0

    @invariant()
    def nobody_is_shut_out_for_longer_than_a_pause(self) -> None:
        assert self.breaker.lets_in(self.now_ms + 10_000)

    @invariant()
    def a_trial_is_alone(self) -> None:
        if self.breaker.state is State.HALF_OPEN:
            assert self.under_way.count(self.breaker.term) <= 1


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30)
