"""What a route and a column of places may look like."""

from __future__ import annotations

import numpy as np
import pytest

from routing.model import Route, check_pairs, check_places

PLACES = np.array([[40.0, -74.0], [40.1, -74.0]])


def test_a_route_tells_its_duration_and_length() -> None:
    route = Route(PLACES, np.array([0.0, 60.0]), np.array([0.0, 500.0]))

    assert (route.duration_s, route.length_m) == (60.0, 500.0)


@pytest.mark.parametrize(
    ("seconds", "metres", "named"),
    [
        ([0.0], [0.0, 1.0], "cumulative_s"),
        ([1.0, 2.0], [0.0, 1.0], "cumulative_s"),
        ([0.0, -1.0], [0.0, 1.0], "cumulative_s"),
        ([0.0, 1.0], [0.0, np.nan], "cumulative_m"),
    ],
)
def test_a_route_whose_columns_do_not_fit_is_refused(seconds: list[float], metres: list[float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Route(PLACES, np.array(seconds), np.array(metres))


def test_a_route_has_two_places_at_least() -> None:
    with pytest.raises(ValueError, match="places"):
        Route(PLACES[:1], np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    "places", [[[np.nan, 0.0]], [[0.0, np.inf]], [[91.0, 0.0]], [[0.0, -181.0]], [[1.0, 2.0, 3.0]], [1.0, 2.0]]
)
def test_places_that_are_none_are_refused_by_name(places: list[object]) -> None:
    with pytest.raises(ValueError, match="origins"):
        check_places("origins", np.array(places))


def test_no_places_are_an_empty_column() -> None:
    assert check_places("origins", np.array([])).shape == (0, 2)


def test_pairs_are_as_many_on_either_side() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        check_pairs(PLACES, PLACES[:1])
