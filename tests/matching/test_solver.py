"""Windows are assigned alike here and by the process beside, which is replaced when it falls."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.kernel.randomness import generator
from matching.assignment import Pairs, assign
from matching.assignment_process import packed, serve
from matching.solver import Solver, SolverError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.kernel.units import Ints

N_RIDES, N_DRIVERS = 30, 40


def window(seed: int) -> tuple[Pairs, Ints, int]:
    rng = generator(seed, "window")
    ride, driver = (each.ravel() for each in np.indices((N_RIDES, N_DRIVERS)))
    return Pairs(ride, driver, rng.integers(-50_000, 900_000, ride.shape)), rng.integers(0, 300_000, N_RIDES), N_DRIVERS


@asynccontextmanager
async def solving(limit_s: float = 20.0) -> AsyncIterator[Solver]:
    solver = Solver(small_pairs=0, limit_s=limit_s)
    try:
        yield solver
    finally:
        await solver.aclose()


async def test_the_process_gives_what_is_found_here_and_goes_on_after_a_fall() -> None:
    async with solving() as solver:
        for seed in (1, 2):
            found, expected = await solver.assign(*window(seed)), assign(*window(seed))
            assert found.driver.tolist() == expected.driver.tolist()
            assert found.cost_milli == expected.cost_milli
        first = solver.pid
        assert first is not None

        os.kill(first, signal.SIGKILL)
        with pytest.raises(SolverError):
            await solver.assign(*window(3))
        assert solver.pid is None

        again = await solver.assign(*window(3))
        assert again.driver.tolist() == assign(*window(3)).driver.tolist()
        assert solver.pid != first


async def test_a_process_that_does_not_answer_is_given_up() -> None:
    async with solving() as solver:
        await solver.assign(*window(1))
        assert solver.pid is not None
        os.kill(solver.pid, signal.SIGSTOP)
        solver._limit_s = 0.05
        with pytest.raises(SolverError, match="did not answer"):
            await solver.assign(*window(2))
        assert solver.pid is None


async def test_who_gives_up_waiting_leaves_no_half_answer_behind() -> None:
    async with solving() as solver:
        await solver.assign(*window(1))
        waiting = asyncio.create_task(solver.assign(*window(2)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])

        found = await solver.assign(*window(3))
        assert found.driver.tolist() == assign(*window(3)).driver.tolist()


async def test_a_small_window_needs_no_process() -> None:
    solver = Solver()
    pairs = Pairs(np.array([0]), np.array([2]), np.array([5]))

    assert (await solver.assign(pairs, np.array([9]), 3)).driver.tolist() == [2]
    assert solver.pid is None


def test_windows_are_read_one_after_the_other_until_they_end() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(b"".join(packed(*window(seed)) for seed in (1, 2))), answers)
    numbers = np.frombuffer(answers.getvalue(), "<i8").reshape(2, 1 + N_RIDES)

    for seed, row in zip((1, 2), numbers, strict=True):
        expected = assign(*window(seed))
        assert row.tolist() == [expected.cost_milli, *expected.driver.tolist()]
