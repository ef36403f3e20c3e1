"""What a dataclass of counters says of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import pytest

from hexhail.kernel.counters import Reading, counted_by, counter, readings


class Colour(IntEnum):
    RED = 1
    GREEN = 2


@dataclass
class Cars:
    seen: int = counter("Cars seen.")
    painted: Counter[Colour] = field(default_factory=Counter, metadata=counted_by("colour", Colour, "Cars painted."))
    washed_twice: int = 0


def test_every_field_is_read_with_what_it_counts() -> None:
    cars = Cars()
    cars.seen += 3
    cars.painted[Colour.GREEN] += 2
    assert list(readings(cars)) == [
        Reading("seen", "Cars seen.", "", {"": 3}),
        Reading("painted", "Cars painted.", "colour", {"RED": 0, "GREEN": 2}),
        Reading("washed_twice", "Washed twice.", "", {"": 0}),
    ]


def test_what_numpy_counted_is_a_number_as_any_other() -> None:
    (seen, *_) = readings(Cars(seen=np.int64(4)))  # type: ignore[arg-type]
    assert seen.values == {"": 4}
    assert type(seen.values[""]) is int


def test_what_is_no_counter_is_named() -> None:
    @dataclass
    class Odd:
        name: str = "x"

    with pytest.raises(TypeError, match="name is no counter"):
        list(readings(Odd()))
