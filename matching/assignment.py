"""Who serves whom, for a whole window at once? The cheapest assignment of rides to drivers, exactly. Pure.

Cost is what a pair or a wait is worth in thousandths of a second, as whole numbers: sums are exact, and equal costs are equal.
Source: the exact solvers are scipy's (Crouse, On implementing 2D rectangular assignment algorithms, 2016; Jonker and Volgenant's
sparse form of 1987). That each ride first looks at its few cheapest drivers, and at more only where prices prove that it must, is
column generation; parting into components and the parameters are our choice (decision 27).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints

WAITS: Final = -1
"""Instead of a driver's number: the ride is left to the next window."""
GREATEST_COST_MILLI: Final = 2**40
"""35 years. The solvers count in float64: sums of as many as there are rides stay exact."""
FIRST_LOOK: Final = 4
"""So many of its cheapest drivers a ride looks at to begin with."""
DENSE_CELLS: Final = 40_000
"""Rides times drivers that are solved as a full table; what is larger, as a sparse one."""
LARGE_RIDES: Final = 300
"""No component with fewer rides is large, whatever the window."""
LARGE_SHARE: Final = 0.5
"""Of the rides: a component with more is none that looking at a few drivers has kept small."""
PACKED_RIDES: Final = 32
"""Small components are solved together until they have so many rides: a call costs more than a few rows."""


@dataclass(frozen=True, slots=True)
class AssignmentParams:
    """What a pair and a wait cost. Source: our choice. Raises ValueError naming the field.

    A ride is left to the next window where no driver is within reach, or where serving it would cost all the others together
    more than its wait does. So a waiting_s above any sum of detours serves as many rides as this window can. By default
    a ride rather waits than that a driver comes 5 minutes for it at first, or 10 at the end of its search: while drivers are few,
    those who are not on long ways serve more rides in the hour (decision 32).

    candidates : of each ride, those who are there soonest
    pickup_limit_s : whoever takes longer is not considered
    waiting_s : what leaving a ride to the next window costs
    waiting_per_s : by how much more, for every second that the rider has waited already
    idle_credit : how much sooner a driver counts as there, for every second without a ride
    idle_credit_limit_s : at most so much sooner
    unshown_s : how much later a driver counts as there whose phone did not show the last offer of the same ride
    """

    candidates: int = 30
    pickup_limit_s: float = 900.0
    waiting_s: float = 300.0
    waiting_per_s: float = 10.0
    idle_credit: float = 0.02
    idle_credit_limit_s: float = 30.0
    unshown_s: float = 120.0

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}, not 1 or more")
        for name in ("pickup_limit_s", "waiting_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, not above 0")
        for name in ("waiting_per_s", "idle_credit", "idle_credit_limit_s", "unshown_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, not 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Who could serve whom, and what it would cost, as columns of one length in any order.

    ride, driver : int64[n_pairs], their numbers, from 0
    cost_milli : int64[n_pairs]; of a pair that is there twice, the lesser one counts
    """

    ride: Ints
    driver: Ints
    cost_milli: Ints

    def __len__(self) -> int:
        """How many."""
        return len(self.ride)


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Which driver serves each ride.

    driver : int64[n_rides], WAITS for a ride that is left to the next window
    cost_milli : of all pairs made and of all waits
    """

    driver: Ints
    cost_milli: int


def pair_cost_milli(pickup_s: Floats, idle_s: Floats, params: AssignmentParams) -> Ints:
    """What does each pair cost? The time to the pickup, less what the driver has earned by waiting for work.

    pickup_s : float64[n_pairs], finite
    idle_s : float64[n_pairs], since the driver's last ride, >= 0
    Returns int64[n_pairs], grows with pickup_s, falls with idle_s.
    """
    credit_s = np.minimum(params.idle_credit * idle_s, params.idle_credit_limit_s)
    return np.rint((pickup_s - credit_s) * MS_PER_S).astype(np.int64)


def waiting_cost_milli(waited_s: Floats, params: AssignmentParams) -> Ints:
    """What does it cost to leave each ride to the next window? float64[n_rides], seconds since the request -> int64[n_rides].

    Who has waited long is the last to be left waiting again.
    """
    return np.rint((params.waiting_s + params.waiting_per_s * waited_s) * MS_PER_S).astype(np.int64)


def assign(pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> Assignment:
    """Which pairs, each ride and each driver in one at most, make the sum of their costs and of the waits the least?

    waiting_milli : int64[n_rides], what it costs to leave each ride waiting
    A pair that costs as much as its ride's wait, or more, is not made. Of several assignments as cheap, always the same one comes
    of the same numbers: whoever numbers rides and drivers by their ids has ties that end on ids.

    Raises ValueError for numbers of no ride or driver, and for costs beyond GREATEST_COST_MILLI.
    """
    _check(pairs, waiting_milli, n_drivers)
    wishes = _Wishes.of(pairs, waiting_milli, n_drivers)
    driver = _solved(wishes)
    return Assignment(driver, _total_milli(wishes, waiting_milli, driver))


def assign_dense(cost_milli: Ints | Floats, waiting_milli: Ints) -> Assignment:
    """The same where every driver could serve every ride.

    cost_milli : int64 or float64[n_rides, n_drivers], whole numbers; float64 is solved as it is, without a copy
    waiting_milli : int64[n_rides]
    Raises ValueError for costs beyond GREATEST_COST_MILLI.
    """
    n_rides, n_drivers = cost_milli.shape
    driver = np.full(n_rides, WAITS, dtype=np.int64)
    _check_costs("waiting_milli", waiting_milli)
    if not cost_milli.size:
        return Assignment(driver, int(waiting_milli.sum()))
    dearest_milli = cost_milli.max(axis=1)
    _check_costs("cost_milli", np.append(dearest_milli, cost_milli.min()))
    table = cost_milli
    if n_rides > n_drivers:  # whoever is left over must be worth 0
        table = np.minimum(cost_milli - waiting_milli[:, None], 0)
    elif not (dearest_milli < waiting_milli).all():
        table = np.minimum(cost_milli, waiting_milli[:, None])
    rides, drivers = linear_sum_assignment(table)
    won_milli = cost_milli[rides, drivers].astype(np.int64) - waiting_milli[rides]
    made = won_milli < 0
    driver[rides[made]] = drivers[made]
    return Assignment(driver, int(waiting_milli.sum()) + int(won_milli[made].sum()))


def prices_milli(pairs: Pairs, waiting_milli: Ints, n_drivers: int, driver: Ints) -> Ints | None:
    """The least prices of drivers at which each ride has what is best for it; None where there are none: it is not the cheapest.

    driver : int64[n_rides], an assignment
    Returns int64[n_drivers], >= 0, and 0 for drivers without a ride. Such prices prove an assignment to be the cheapest, whoever
    found it. Source: duality of linear programmes.
    """
    wishes = _Wishes.of(pairs, waiting_milli, n_drivers)
    price = np.zeros(n_drivers, dtype=np.int64)
    chosen = wishes.chosen(driver)
    if not _raised(price, wishes.driver, wishes.ride, wishes.worth, _worth_of(wishes, driver, chosen), driver, n_drivers):
        return None
    busy = np.zeros(n_drivers, dtype=np.bool_)
    busy[driver[driver != WAITS]] = True
    return None if price[~busy].any() else price


@dataclass(frozen=True, slots=True, eq=False)
class _Wishes:
    """Pairs that are better than waiting, by ride and then by cost; each pair once.

    ride, driver : int64[n]
    worth : int64[n], below 0: the cost less that of the wait
    first : int64[n_rides + 1], the pairs of ride i are first[i] to first[i + 1]
    """

    ride: Ints
    driver: Ints
    worth: Ints
    first: Ints
    n_drivers: int

    @property
    def n_rides(self) -> int:
        return len(self.first) - 1

    @classmethod
    def of(cls, pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> _Wishes:
        worth = pairs.cost_milli - waiting_milli[pairs.ride]
        ride, driver, worth = _sorted(pairs.ride, pairs.driver, worth)
        keep = worth < 0
        name = ride * n_drivers + driver
        in_order = np.sort(name)
        if (in_order[1:] == in_order[:-1]).any():
            once = np.zeros(len(name), dtype=np.bool_)
            once[np.unique(name, return_index=True)[1]] = True  # the first of several alike, which is the cheapest
            keep &= once
        if not keep.all():
            ride, driver, worth = ride[keep], driver[keep], worth[keep]
        first = np.searchsorted(ride, np.arange(len(waiting_milli) + 1))
        return cls(ride, driver, worth, first, n_drivers)

    def rank(self) -> Ints:
        """Of each pair among its ride's, 0 for the cheapest."""
        return np.arange(len(self.ride)) - self.first[self.ride]

    def chosen(self, driver: Ints) -> Ints:
        """The pairs that an assignment is made of, by ride."""
        return np.flatnonzero(driver[self.ride] == self.driver)


def _solved(wishes: _Wishes) -> Ints:
    """The driver of each ride.

    Each ride looks at its few cheapest drivers; what that leaves falls apart into small components. Then prices tell which rides
    would rather have a driver that they did not look at: they look at these too, and what they touch is solved again. Where that
    joins most rides, as it does where drivers are scarce, all is solved at once.
    """
    n_drivers = wishes.n_drivers
    driver = np.full(wishes.n_rides, WAITS, dtype=np.int64)
    price = np.zeros(n_drivers, dtype=np.int64)
    looked_at = wishes.rank() < FIRST_LOOK
    large_rides = max(LARGE_RIDES, LARGE_SHARE * wishes.n_rides)
    stirred = np.diff(wishes.first) > 0
    while stirred.any():
        seen = np.flatnonzero(looked_at)
        ride_part, driver_part = _components(wishes.ride[seen], wishes.driver[seen], wishes.n_rides, n_drivers)
        if np.bincount(ride_part).max() > large_rides:
            return _solved_at_once(wishes)
        part_stirred = np.zeros(wishes.n_rides + n_drivers, dtype=np.bool_)
        part_stirred[ride_part[stirred]] = True
        again = seen[part_stirred[ride_part[wishes.ride[seen]]]]
        rides, drivers, worth = wishes.ride[again], wishes.driver[again], wishes.worth[again]
        driver[part_stirred[ride_part]] = WAITS
        price[part_stirred[driver_part]] = 0
        _solve_parts(rides, drivers, worth, ride_part[rides], driver)
        own = _worth_of(wishes, driver, seen[driver[wishes.ride[seen]] == wishes.driver[seen]])
        if not _raised(price, drivers, rides, worth, own, driver, n_drivers):
            raise ArithmeticError("the assignment found is not the cheapest")
        aim = np.where(driver == WAITS, 0, own + price[driver])
        wanted = wishes.worth + price[wishes.driver] < aim[wishes.ride]
        stirred = np.zeros(wishes.n_rides, dtype=np.bool_)
        stirred[wishes.ride[wanted]] = True
        looked_at |= wanted
    return driver


def _solved_at_once(wishes: _Wishes) -> Ints:
    """The driver of each ride, from all pairs."""
    driver = np.full(wishes.n_rides, WAITS, dtype=np.int64)
    part, _ = _components(wishes.ride, wishes.driver, wishes.n_rides, wishes.n_drivers)
    _solve_parts(wishes.ride, wishes.driver, wishes.worth, part[wishes.ride], driver)
    return driver


def _solve_parts(ride: Ints, driver: Ints, worth: Ints, part: Ints, found: Ints) -> None:
    """Solves each component of these pairs, into `found` by ride. Pairs are in the order of rides and cost."""
    order = np.argsort(part, kind="stable")
    ride, driver, worth = ride[order], driver[order], worth[order]
    begins, sizes = _runs(part[order])
    one_ride = ride[begins] == ride[begins + sizes - 1]
    found[ride[begins[one_ride]]] = driver[begins[one_ride]]
    one_driver = np.minimum.reduceat(driver, begins) == np.maximum.reduceat(driver, begins)
    _solve_one_driver(ride, driver, worth, begins, sizes, one_driver & ~one_ride, found)
    more = ~(one_ride | one_driver)
    if more.any():
        which = np.repeat(more, sizes)
        _solve_in_packs(ride[which], driver[which], worth[which], sizes[more], found)


def _solve_one_driver(ride: Ints, driver: Ints, worth: Ints, begins: Ints, sizes: Ints, which: Bools, found: Ints) -> None:
    """Components with one driver: the ride that gains most has it; the first of several that gain as much."""
    least = np.repeat(np.minimum.reduceat(worth, begins), sizes)
    best = np.flatnonzero((worth == least) & np.repeat(which, sizes))
    _, firsts = np.unique(driver[best], return_index=True)
    found[ride[best[firsts]]] = driver[best[firsts]]


def _solve_in_packs(ride: Ints, driver: Ints, worth: Ints, sizes: Ints, found: Ints) -> None:
    """Components one after the other, of so many pairs each: small ones together, each ride and each driver in one only."""
    ends = np.cumsum(sizes)
    ride_begins, _ = _runs(ride)
    rides = ride[ride_begins]
    row = np.repeat(np.arange(len(rides)), np.diff(np.append(ride_begins, len(ride))))
    named, first_seen, again = np.unique(driver, return_index=True, return_inverse=True)
    in_order = np.argsort(np.searchsorted(ends, first_seen, side="right"), kind="stable")
    drivers, place = named[in_order], np.empty(len(named), dtype=np.int64)
    place[in_order] = np.arange(len(named))
    column = place[again]
    begin = row_begin = column_begin = 0
    row_ends = row[ends - 1] + 1
    for i, (end, row_end) in enumerate(zip(ends.tolist(), row_ends.tolist(), strict=True)):
        if i + 1 < len(ends) and row_ends[i + 1] - row_begin <= PACKED_RIDES:
            continue
        pack = slice(begin, end)
        column_end = int(column[pack].max()) + 1
        shape = (row_end - row_begin, column_end - column_begin)
        of_ride = _solve_pack(row[pack] - row_begin, column[pack] - column_begin, worth[pack], shape)
        served = np.flatnonzero(of_ride != WAITS)
        found[rides[row_begin + served]] = drivers[column_begin + of_ride[served]]
        begin, row_begin, column_begin = end, row_end, column_end


def _solve_pack(row: Ints, column: Ints, worth: Ints, shape: tuple[int, int]) -> Ints:
    """The column of each row, or WAITS: as a full table or, where that were large, as a sparse one."""
    n_rows, n_columns = shape
    found = np.full(n_rows, WAITS, dtype=np.int64)
    if n_rows * n_columns <= DENSE_CELLS:
        table = np.zeros(shape)
        table[row, column] = worth  # what is no pair is worth as much as waiting
        rows, columns = linear_sum_assignment(table)
        made = table[rows, columns] < 0
    else:
        # each row has a column of its own to wait in; a weight of 0 would count as no pair at all, so all are above 0
        lift = 1 - int(worth.min())
        own = np.arange(n_rows)
        weight = np.concatenate((worth + lift, np.full(n_rows, lift))).astype(np.float64)
        at = (np.concatenate((row, own)), np.concatenate((column, n_columns + own)))
        every, where = min_weight_full_bipartite_matching(csr_array((weight, at), shape=(n_rows, n_columns + n_rows)))
        rows, columns = every.astype(np.int64), where.astype(np.int64)
        made = columns < n_columns
    found[rows[made]] = columns[made]
    return found


def _runs(values: Ints) -> tuple[Ints, Ints]:
    """Where each run of equal values begins, and how long it is."""
    begins = np.flatnonzero(np.concatenate((np.ones(min(len(values), 1), np.bool_), values[1:] != values[:-1])))
    return begins, np.diff(np.append(begins, len(values)))


def _components(ride: Ints, driver: Ints, n_rides: int, n_drivers: int) -> tuple[Ints, Ints]:
    """The component of each ride and of each driver."""
    n = n_rides + n_drivers
    joined = coo_array((np.ones(len(ride), dtype=np.int8), (ride, driver + n_rides)), shape=(n, n))
    _, part = connected_components(joined, directed=False)
    parts = part.astype(np.int64)
    return parts[:n_rides], parts[n_rides:]


def _worth_of(wishes: _Wishes, driver: Ints, chosen: Ints) -> Ints:
    """int64[n_rides], what each ride's own pair is worth, 0 for those that wait; `chosen` are those pairs."""
    own = np.zeros(len(driver), dtype=np.int64)
    own[wishes.ride[chosen]] = wishes.worth[chosen]
    return own


def _raised(price: Ints, driver: Ints, ride: Ints, worth: Ints, own: Ints, assigned: Ints, n_drivers: int) -> bool:
    """Raises prices until no ride of these pairs would rather have another driver. False where that never ends."""
    order = np.argsort(driver, kind="stable")
    ride, worth = ride[order], worth[order]
    named, begins = np.unique(driver[order], return_index=True)
    has = assigned != WAITS
    theirs = np.where(has, assigned, 0)
    for _ in range(n_drivers + 1):
        aim = np.where(has, own + price[theirs], 0)
        if not len(named):
            return True
        asked = np.maximum(np.maximum.reduceat(aim[ride] - worth, begins), 0)
        if not (asked > price[named]).any():
            return True
        price[named] = np.maximum(price[named], asked)
    return False


def _total_milli(wishes: _Wishes, waiting_milli: Ints, driver: Ints) -> int:
    return int(waiting_milli.sum()) + int(wishes.worth[wishes.chosen(driver)].sum())


def _sorted(ride: Ints, driver: Ints, worth: Ints) -> tuple[Ints, Ints, Ints]:
    """By ride, worth, driver."""
    if not len(ride):
        return ride, driver, worth
    least = int(worth.min())
    bits = [int(span).bit_length() for span in (ride.max(), worth.max() - least, driver.max())]
    if sum(bits) < 63:
        key = np.sort((((ride << bits[1]) | (worth - least)) << bits[2]) | driver)
        driver = key & ((1 << bits[2]) - 1)
        key >>= bits[2]
        ride, worth = key >> bits[1], (key & ((1 << bits[1]) - 1)) + least
    else:
        order = np.lexsort((driver, worth, ride))
        ride, driver, worth = ride[order], driver[order], worth[order]
    return ride, driver, worth


def _check(pairs: Pairs, waiting_milli: Ints, n_drivers: int) -> None:
    if not len(pairs.ride) == len(pairs.driver) == len(pairs.cost_milli):
        raise ValueError("the columns of pairs have different lengths")
    for name, column, limit in (("ride", pairs.ride, len(waiting_milli)), ("driver", pairs.driver, n_drivers)):
        if len(column) and not (column.min() >= 0 and column.max() < limit):
            raise ValueError(f"{name} holds numbers that are not 0 to {limit - 1}")
    _check_costs("cost_milli", pairs.cost_milli)
    _check_costs("waiting_milli", waiting_milli)


def _check_costs(name: str, cost_milli: Ints) -> None:
    if cost_milli.size and not (cost_milli.min() >= -GREATEST_COST_MILLI and cost_milli.max() <= GREATEST_COST_MILLI):
        raise ValueError(f"{name} holds costs beyond {GREATEST_COST_MILLI}")
