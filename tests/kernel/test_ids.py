"""Ids: which are taken, how new ones are made, and what they tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import ids
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import CityId

CITY = CityId("gridport")
TIMES_MS = st.integers(0, 2**47)


@pytest.mark.parametrize("value", ["a", "d1", "acme.d17", "A-b_c.9", "0", "x" * 64])
def test_names_that_are_taken(value: str) -> None:
    assert ids.check_name("driver_id", value) == value


@pytest.mark.parametrize("value", ["", "x" * 65, "-a", ".a", "_a", "a b", "a/b", "a\n", "ä", "a{b}", "a:b", "a\0", "🚕"])
def test_names_that_are_not(value: str) -> None:
    with pytest.raises(DomainError) as refused:
        ids.check_name("driver_id", value)
    assert refused.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in refused.value.violations] == ["driver_id"]
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("value", ["", "Gridport", "1st", "grid-port", "grid port", "g" * 32, "gridport\n"])
def test_what_is_no_citys_id(value: str) -> None:
    with pytest.raises(DomainError, match="city_id"):
        ids.check_city_name(value)


@given(TIMES_MS)
def test_a_new_id_names_its_city(now_ms: int) -> None:
    assert ids.check_minted("ride_id", ids.mint(CITY, now_ms)) == CITY


@given(st.lists(TIMES_MS, unique=True, max_size=20))
def test_new_ids_sort_by_the_time_of_their_making(times_ms: list[int]) -> None:
    made = {ids.mint(CITY, now_ms): now_ms for now_ms in times_ms}
    assert [made[i] for i in sorted(made)] == sorted(times_ms)


def test_each_millisecond_has_ids_of_its_own() -> None:
    """Also where a number of seconds with a fraction would fall short of the millisecond."""
    first_ms = 1_000_000_000_000
    made = [ids.mint(CITY, first_ms + n) for n in range(5_000)]
    assert made == sorted(made)


def test_no_two_ids_of_one_millisecond_are_the_same() -> None:
    assert len({ids.mint(CITY, 1_357_017_600_000) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("city", ["a", "new_york", "x2", "z" * 31])
def test_an_id_of_any_city_is_known_again(city: str) -> None:
    assert ids.check_minted("ride_id", ids.mint(CityId(city), 0)) == city


@given(st.text(max_size=60))
def test_an_id_that_is_not_ours_is_refused_never_a_crash(value: str) -> None:
    with pytest.raises(DomainError):
        ids.check_minted("ride_id", value)


def test_a_drivers_id_may_name_its_fleet() -> None:
    assert ids.fleet_of("acme.d17") == "acme"
    assert ids.fleet_of("acme.north.d17") == "acme"
    assert ids.fleet_of("d17") == ""
