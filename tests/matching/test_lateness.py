"""Are searches late? Known after enough rides in a row, forgotten soon."""

from __future__ import annotations

import pytest

from hexhail.kernel.errors import DomainError, Reason
from matching.lateness import FEWEST, FORGOTTEN_MS, LIMIT_MS, Lateness

NOW_MS = 1_700_000_000_000


def seen(late_ms: int, count: int) -> Lateness:
    lateness = Lateness()
    for _ in range(count):
        lateness.see(NOW_MS - late_ms, NOW_MS)
    return lateness


def test_a_new_ride_is_refused_where_others_are_looked_at_late() -> None:
    with pytest.raises(DomainError) as refusal:
        seen(10 * LIMIT_MS, FEWEST).check(NOW_MS)
    assert refusal.value.reason is Reason.OVERLOADED


def test_rides_that_are_looked_at_in_time_let_others_in() -> None:
    seen(LIMIT_MS // 2, 1_000).check(NOW_MS)


def test_a_process_that_finds_a_few_old_deadlines_knows_nothing_yet() -> None:
    assert seen(3_600_000, FEWEST - 1).expected_ms(NOW_MS) == 0.0


def test_what_was_late_is_forgotten_where_nothing_is_looked_at_any_more() -> None:
    lateness = seen(10 * LIMIT_MS, FEWEST)
    lateness.check(NOW_MS + FORGOTTEN_MS + 1)

    lateness.see(NOW_MS, NOW_MS + FORGOTTEN_MS + 1)
    assert lateness.expected_ms(NOW_MS + FORGOTTEN_MS + 1) == 0.0


def test_lateness_follows_what_it_sees() -> None:
    lateness = seen(10 * LIMIT_MS, FEWEST)
    for _ in range(200):
        lateness.see(NOW_MS, NOW_MS)
    assert lateness.expected_ms(NOW_MS) < 1.0
