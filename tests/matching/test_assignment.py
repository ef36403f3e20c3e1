"""The cheapest assignment: as brute force and as scipy's dense solver have it, whatever the order and however it falls apart."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from hexhail.kernel.randomness import generator
from matching import assignment as under_test
from matching.assignment import (
    GREATEST_COST_MILLI,
    WAITS,
    AssignmentParams,
    Pairs,
    assign,
    assign_dense,
    pair_cost_milli,
    prices_milli,
    waiting_cost_milli,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Ints

DRAWS = 200
SIZE = 30


def pairs_of(rows: Sequence[tuple[int, int, int]]) -> Pairs:
    """Pairs of (ride, driver, cost)."""
    ride, driver, cost = (np.array(column, dtype=np.int64) for column in (zip(*rows, strict=True) if rows else ((), (), ())))
    return Pairs(ride, driver, cost)


@st.composite
def small_windows(draw: st.DrawFn) -> tuple[Pairs, Ints, int]:
    """A few rides and drivers, with few different costs, so that many are equal."""
    n_rides, n_drivers = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    row = st.tuples(st.integers(0, n_rides - 1), st.integers(0, n_drivers - 1), st.integers(-3, 12))
    pairs = pairs_of(draw(st.lists(row, max_size=16)))
    waiting = np.array(draw(st.lists(st.integers(-2, 10), min_size=n_rides, max_size=n_rides)), dtype=np.int64)
    return pairs, waiting, n_drivers


def made_of(pairs: Pairs, waiting: Ints, driver: Ints) -> int:
    """What an assignment costs, counted anew. Fails where a driver has two rides, or a pair is none."""
    served = np.flatnonzero(driver != WAITS)
    assert len(set(driver[served].tolist())) == len(served)
    cheapest: dict[tuple[int, int], int] = {}
    for ride, number, cost in zip(pairs.ride.tolist(), pairs.driver.tolist(), pairs.cost_milli.tolist(), strict=True):
        cheapest[ride, number] = min(cost, cheapest.get((ride, number), cost))
    waits = int(waiting[driver == WAITS].sum())
    return waits + sum(cheapest[ride, int(driver[ride])] for ride in served.tolist())


def by_brute_force(pairs: Pairs, waiting: Ints, n_drivers: int) -> int:
    """The least cost of all assignments there are."""
    n_rides = len(waiting)
    costs = np.full((n_rides, n_drivers + n_rides), np.inf)
    for ride, driver, cost in zip(pairs.ride, pairs.driver, pairs.cost_milli, strict=True):
        costs[ride, driver] = min(costs[ride, driver], cost)
    costs[np.arange(n_rides), n_drivers + np.arange(n_rides)] = waiting
    every = itertools.permutations(range(n_drivers + n_rides), n_rides)
    return int(min(costs[np.arange(n_rides), list(columns)].sum() for columns in every))


def dense_least(pairs: Pairs, waiting: Ints, n_drivers: int) -> int:
    """The least cost as scipy's dense solver has it, with a column for each ride to wait in."""
    n_rides = len(waiting)
    costs = np.full((n_rides, n_drivers + n_rides), np.inf)
    np.minimum.at(costs, (pairs.ride, pairs.driver), pairs.cost_milli)
    costs[np.arange(n_rides), n_drivers + np.arange(n_rides)] = waiting
    return int(costs[linear_sum_assignment(costs)].sum())


def town(n_rides: int, n_drivers: int, candidates: int, seed: int, step_milli: int = 1) -> tuple[Pairs, Ints]:
    """Rides and drivers strewn over a square; each ride's candidates are its nearest drivers, costs in whole steps."""
    rng = generator(seed, "town")
    rides, drivers = rng.uniform(0, 600, (n_rides, 2)), rng.uniform(0, 600, (n_drivers, 2))
    away = np.abs(rides[:, None] - drivers).sum(axis=2)
    nearest = np.argsort(away, axis=1)[:, :candidates]
    cost = np.rint(np.take_along_axis(away, nearest, axis=1) * 1_000 / step_milli).astype(np.int64) * step_milli
    ride = np.repeat(np.arange(n_rides), nearest.shape[1])
    return Pairs(ride, nearest.ravel().astype(np.int64), cost.ravel()), rng.integers(50_000, 400_000, n_rides)


@pytest.fixture(params=["as it is", "all sparse", "one at a time", "a short look", "all at once"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on each of the ways that a component can take."""
    if request.param == "all sparse":
        monkeypatch.setattr(under_test, "DENSE_CELLS", 0)
    elif request.param == "one at a time":
        monkeypatch.setattr(under_test, "PACKED_RIDES", 0)
    elif request.param == "a short look":
        monkeypatch.setattr(under_test, "FIRST_LOOK", 1)
    elif request.param == "all at once":
        monkeypatch.setattr(under_test, "LARGE_RIDES", 1)
        monkeypatch.setattr(under_test, "LARGE_SHARE", 0.0)


@settings(deadline=None, max_examples=50)
@given(small_windows())
def test_it_is_as_cheap_as_the_best_of_all_assignments(window: tuple[Pairs, Ints, int]) -> None:
    pairs, waiting, n_drivers = window
    found = assign(pairs, waiting, n_drivers)

    assert found.cost_milli == made_of(pairs, waiting, found.driver) == by_brute_force(pairs, waiting, n_drivers)


@settings(deadline=None, max_examples=50)
@given(small_windows(), st.integers(0, 1_000))
def test_the_order_of_pairs_changes_nothing_and_numbering_not_the_cost(window: tuple[Pairs, Ints, int], seed: int) -> None:
    pairs, waiting, n_drivers = window
    rng = generator(seed, "order")
    found, order = assign(pairs, waiting, n_drivers), rng.permutation(len(pairs))
    shuffled = assign(Pairs(pairs.ride[order], pairs.driver[order], pairs.cost_milli[order]), waiting, n_drivers)

    assert shuffled.driver.tolist() == found.driver.tolist()

    rides, drivers = rng.permutation(len(waiting)), rng.permutation(n_drivers)
    waiting_anew = np.empty_like(waiting)
    waiting_anew[rides] = waiting
    renumbered = assign(Pairs(rides[pairs.ride], drivers[pairs.driver], pairs.cost_milli), waiting_anew, n_drivers)

    assert renumbered.cost_milli == found.cost_milli


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(("n_rides", "n_drivers", "step_milli"), [(120, 300, 1), (200, 90, 1), (150, 150, 20_000)])
def test_it_is_as_cheap_as_the_dense_solver_has_it(n_rides: int, n_drivers: int, step_milli: int) -> None:
    """With drivers to spare, with too few of them, and with many costs alike."""
    pairs, waiting = town(n_rides, n_drivers, 12, seed=n_rides, step_milli=step_milli)
    found = assign(pairs, waiting, n_drivers)

    assert found.cost_milli == made_of(pairs, waiting, found.driver) == dense_least(pairs, waiting, n_drivers)


@pytest.mark.usefixtures("ways")
def test_prices_prove_it_and_refuse_what_is_dearer() -> None:
    pairs, waiting = town(80, 100, 10, seed=3)
    found = assign(pairs, waiting, 100)
    price = prices_milli(pairs, waiting, 100, found.driver)

    assert price is not None
    assert (price >= 0).all()
    assert not price[np.setdiff1d(np.arange(100), found.driver)].any()

    served = np.flatnonzero(found.driver != WAITS)
    worse = found.driver.copy()
    worse[served[0]] = WAITS
    assert prices_milli(pairs, waiting, 100, worse) is None


def test_where_everyone_could_serve_everyone_the_table_gives_the_same() -> None:
    rng = generator(5, "dense")
    for n_rides, n_drivers in ((40, 90), (90, 40)):
        cost, waiting = rng.integers(0, 900_000, (n_rides, n_drivers)), rng.integers(1, 200_000, n_rides)
        ride, driver = (each.ravel() for each in np.indices(cost.shape))
        dense, sparse = assign_dense(cost, waiting), assign(Pairs(ride, driver, cost.ravel()), waiting, n_drivers)

        assert dense.cost_milli == sparse.cost_milli == assign_dense(cost.astype(np.float64), waiting).cost_milli
        assert (dense.driver != WAITS).sum() < n_rides


def test_components_do_not_know_of_each_other() -> None:
    """Two towns at once are the two towns one after the other."""
    (one, waits_one), (other, waits_other) = town(40, 50, 8, seed=1), town(30, 20, 8, seed=2)
    both = Pairs(
        *(
            np.concatenate(c)
            for c in ((one.ride, other.ride + 40), (one.driver, other.driver + 50), (one.cost_milli, other.cost_milli))
        )
    )
    together = assign(both, np.concatenate((waits_one, waits_other)), 70)
    alone, besides = assign(one, waits_one, 50), assign(other, waits_other, 20)

    assert together.driver[:40].tolist() == alone.driver.tolist()
    assert together.driver[40:].tolist() == [d if d == WAITS else d + 50 for d in besides.driver.tolist()]
    assert together.cost_milli == alone.cost_milli + besides.cost_milli


def test_random_assignments_cost_what_the_law_says() -> None:
    """With costs drawn from Exp(1), n rides and n drivers cost the sum of 1 / i^2 in the mean. Source: Parisi's conjecture,
    proved by Linusson and Waestlund, and by Nair, Prabhakar and Sharma (2004)."""
    rng, unit = generator(27, "law"), 10**9
    ride, driver = (each.ravel() for each in np.indices((SIZE, SIZE)))
    never = np.full(SIZE, 100 * unit)
    costs = []
    for _ in range(DRAWS):
        cost = np.rint(rng.exponential(1.0, SIZE * SIZE) * unit).astype(np.int64)
        found = assign(Pairs(ride, driver, cost), never, SIZE)
        assert sorted(found.driver.tolist()) == list(range(SIZE))
        costs.append(found.cost_milli / unit)
    expected = sum(1 / i**2 for i in range(1, SIZE + 1))
    error = np.std(costs, ddof=1) / math.sqrt(DRAWS)

    assert abs(np.mean(costs) - expected) < 2.6 * error  # 99 in 100 such runs; this one is always the same
    assert error < 0.05 * expected


def test_a_ride_waits_where_serving_it_costs_the_others_more() -> None:
    pairs = pairs_of([(0, 0, 100), (1, 0, 90), (1, 1, 260)])

    assert assign(pairs, np.array([150, 1_000]), 2).driver.tolist() == [WAITS, 0]
    assert assign(pairs, np.array([1_000, 1_000]), 2).driver.tolist() == [0, 1]


def test_a_pair_that_costs_as_much_as_the_wait_is_not_made() -> None:
    assert assign(pairs_of([(0, 0, 100)]), np.array([100]), 1).driver.tolist() == [WAITS]


def test_equal_costs_always_end_alike() -> None:
    pairs, waiting = town(60, 60, 10, seed=4, step_milli=100_000)
    first, *others = [assign(pairs, waiting, 60).driver.tolist() for _ in range(3)]

    assert others == [first, first]


def test_nothing_to_assign_is_no_trouble() -> None:
    nobody = pairs_of([])

    assert assign(nobody, np.zeros(0, np.int64), 0).driver.tolist() == []
    assert assign(nobody, np.array([7, 5]), 3).driver.tolist() == [WAITS, WAITS]
    assert assign(nobody, np.array([7, 5]), 3).cost_milli == 12
    assert assign_dense(np.zeros((2, 0), np.int64), np.array([7, 5])).driver.tolist() == [WAITS, WAITS]


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        (pairs_of([(2, 0, 1)]), "ride"),
        (pairs_of([(-1, 0, 1)]), "ride"),
        (pairs_of([(0, 3, 1)]), "driver"),
        (pairs_of([(0, 0, GREATEST_COST_MILLI + 1)]), "cost_milli"),
        (Pairs(np.zeros(2, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)), "lengths"),
    ],
)
def test_what_cannot_be_meant_is_refused(pairs: Pairs, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        assign(pairs, np.zeros(2, np.int64), 3)


def test_idle_drivers_and_long_waits_come_first() -> None:
    params = AssignmentParams(waiting_s=600.0, waiting_per_s=10.0, idle_credit=0.1, idle_credit_limit_s=60.0)

    assert pair_cost_milli(np.array([100.0, 100.0, 100.0]), np.array([0.0, 300.0, 9_000.0]), params).tolist() == [
        100_000,
        70_000,
        40_000,
    ]
    assert waiting_cost_milli(np.array([0.0, 4.0]), params).tolist() == [600_000, 640_000]


@pytest.mark.parametrize(
    "wish",
    [
        {"candidates": 0},
        {"pickup_limit_s": 0.0},
        {"waiting_s": math.inf},
        {"waiting_per_s": -1.0},
        {"idle_credit": math.nan},
        {"idle_credit_limit_s": -1.0},
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(wish: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wish))):
        AssignmentParams(**wish)  # type: ignore[arg-type]
