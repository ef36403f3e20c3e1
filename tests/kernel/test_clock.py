"""Time that a test moves: forward only, and waking everybody in order."""

from __future__ import annotations

import asyncio
import time

import pytest

from hexhail.kernel.clock import ManualClock, SystemClock

NOW_MS = 1_357_017_600_000


async def sleeping(clock: ManualClock, seconds: float, name: str, woken: list[str]) -> None:
    await clock.sleep(seconds)
    woken.append(name)


async def settle() -> None:
    """Everybody who can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_manual_clock_stands_still_until_it_is_told() -> None:
    clock = ManualClock(NOW_MS)
    assert clock.now_ms() == clock.now_ms() == NOW_MS
    clock.advance(250)
    assert clock.now_ms() == NOW_MS + 250


def test_a_manual_clock_refuses_to_go_back() -> None:
    clock = ManualClock(NOW_MS)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
    assert clock.now_ms() == NOW_MS


async def test_sleepers_wake_in_the_order_of_their_time_and_of_their_lying_down() -> None:
    clock, woken = ManualClock(NOW_MS), list[str]()
    tasks = [
        asyncio.create_task(sleeping(clock, seconds, name, woken))
        for seconds, name in ((3, "third"), (1, "first"), (2, "second"), (1, "first too"), (9, "never"))
    ]
    await settle()
    clock.advance(999)
    await settle()
    assert woken == []
    clock.advance(2_001)
    await settle()
    assert woken == ["first", "first too", "second", "third"]
    tasks[-1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_gives_up_sleeping_disturbs_nobody() -> None:
    clock, woken = ManualClock(NOW_MS), list[str]()
    gone, stays = (asyncio.create_task(sleeping(clock, 1, name, woken)) for name in ("gone", "stays"))
    await settle()
    gone.cancel()
    await settle()
    clock.advance(1_000)
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert woken == ["stays"]


async def test_no_time_is_slept_at_once() -> None:
    clock = ManualClock(NOW_MS)
    await asyncio.wait_for(clock.sleep(0), 1)
    await asyncio.wait_for(clock.sleep(-1), 1)


def test_the_system_clock_is_the_machines_moved_by_its_offset() -> None:
    before_ms = time.time_ns() // 1_000_000
    moved_ms = SystemClock(-3_600_000).now_ms() + 3_600_000
    assert before_ms <= moved_ms <= time.time_ns() // 1_000_000


def test_the_system_clock_holds_still_while_the_machines_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    readings_ns = iter([5_000_000_000, 3_000_000_000, 6_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(readings_ns))
    assert [clock.now_ms() for _ in range(3)] == [5_000, 5_000, 6_000]
