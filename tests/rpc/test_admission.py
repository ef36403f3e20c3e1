"""How many calls may be under way: the bound that does not move, the limit that does, and whom it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.admission import Admission, AdmissionParams

SLOW_S = 1.0
PARAMS = AdmissionParams(max_calls=100, least_calls=4, slow_s=SLOW_S, decrease=0.5, pause_s=0.25)


class Moments:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def crowded(calls: int, params: AdmissionParams = PARAMS) -> tuple[Admission, Moments, list[float]]:
    """So many calls under way, all begun at once."""
    moments = Moments()
    admission = Admission(params, moments)
    return admission, moments, [admission.enter(begins_work=False) for _ in range(calls)]


def test_slow_calls_lower_the_limit_below_what_was_under_way() -> None:
    admission, moments, began = crowded(40)
    moments.now_s = 2 * SLOW_S

    admission.leave(began[0])

    assert admission.limit == 20
    with pytest.raises(DomainError) as refusal:
        admission.enter(begins_work=True)
    assert refusal.value.reason is Reason.OVERLOADED
    assert refusal.value.metadata["retry_after_ms"]
    admission.enter(begins_work=False)


def test_calls_that_were_slow_together_count_once() -> None:
    admission, moments, began = crowded(40)
    moments.now_s = 2 * SLOW_S

    for began_s in began:
        admission.leave(began_s)

    assert admission.limit == 20


def test_quick_calls_raise_the_limit_again_where_it_is_needed() -> None:
    admission, moments, began = crowded(40)
    moments.now_s = 2 * SLOW_S
    for began_s in began:
        admission.leave(began_s)

    for _ in range(30):
        admission.leave(admission.enter(begins_work=True))
    assert admission.limit == 20, "nobody needs more"

    for _ in range(30):
        here = [admission.enter(begins_work=True) for _ in range(admission.limit)]
        for began_s in here:
            admission.leave(began_s)
    assert admission.limit == PARAMS.max_calls


def test_nobody_comes_in_beyond_the_bound() -> None:
    admission, _, _ = crowded(PARAMS.max_calls)

    with pytest.raises(DomainError):
        admission.enter(begins_work=False)
    assert admission.under_way == PARAMS.max_calls


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 3)), max_size=200))
def test_whatever_happens_the_limit_stays_within_its_bounds_and_calls_are_counted(steps: list[tuple[bool, bool, float]]) -> None:
    admission, moments, began = crowded(0)
    for enters, begins_work, passed_s in steps:
        moments.now_s += passed_s
        if enters:
            room = admission.under_way < (admission.limit if begins_work else PARAMS.max_calls)
            try:
                began.append(admission.enter(begins_work=begins_work))
            except DomainError:
                assert not room
            else:
                assert room
        elif began:
            admission.leave(began.pop(0))
        assert admission.under_way == len(began)
        assert PARAMS.least_calls <= admission.limit <= PARAMS.max_calls


@pytest.mark.parametrize("wrong", [{"least_calls": 0}, {"decrease": 1.0}, {"slow_s": 0.0}, {"max_calls": 0}])
def test_parameters_that_serve_nobody_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="admission needs"):
        AdmissionParams(**wrong)  # type: ignore[arg-type]
