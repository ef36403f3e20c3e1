"""From a table to a dataclass: what is taken, and how a complaint says where and what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hexhail.kernel.errors import DomainError, Reason, invalid
from hexhail.kernel.randomness import generator
from hexhail.kernel.tables import TableError, structure
from hexhail.kernel.units import from_e7, to_e7


@dataclass(frozen=True, slots=True)
class Step:
    radius_m: float
    size: int = 3

    def __post_init__(self) -> None:
        if self.radius_m <= 0:
            raise ValueError("radius_m must be above 0")


@dataclass(frozen=True, slots=True)
class Params:
    name: str = "classic"
    enabled: bool = True
    steps: tuple[Step, ...] = ()
    inner: Step = field(default_factory=lambda: Step(1.0))


def test_an_empty_table_gives_the_defaults() -> None:
    assert structure({}, Params, "city.toml [matching]") == Params()


def test_nested_tables_become_nested_dataclasses() -> None:
    table = {"name": "eta", "enabled": False, "steps": [{"radius_m": 2, "size": 1}, {"radius_m": 0.5}], "inner": {"radius_m": 3}}
    assert structure(table, Params, "x") == Params("eta", False, (Step(2.0, 1), Step(0.5)), Step(3.0))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"nmae": "eta"}, ["unknown keys: nmae"]),
        ({"name": 3}, ["name", "3 is not a text"]),
        ({"enabled": 1}, ["enabled", "1 is neither true nor false"]),
        ({"steps": [{"radius_m": 1.0}, {"radius_m": "far"}]}, ["steps[1].radius_m", "'far' is not a number"]),
        ({"steps": [{"radius_m": float("nan")}]}, ["steps[0].radius_m", "not a number"]),
        ({"steps": [{"radius_m": True}]}, ["steps[0].radius_m", "not a number"]),
        ({"steps": [{"radius_m": 1.0, "size": 2.0}]}, ["steps[0].size", "2.0 is not a whole number"]),
        ({"steps": [{"radius_m": 1.0, "size": False}]}, ["steps[0].size", "not a whole number"]),
        ({"steps": [{}]}, ["steps[0].radius_m", "required, and missing"]),
        ({"steps": [{"radius_m": -1}]}, ["steps[0]", "radius_m must be above 0"]),
        ({"inner": {"radius_m": 1, "sise": 2}}, ["inner", "unknown keys: sise"]),
        ({"inner": 7}, ["inner"]),
    ],
)
def test_a_complaint_is_one_line_that_names_place_and_fault(table: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(TableError) as complaint:
        structure(table, Params, "city.toml [matching]")
    text = str(complaint.value)
    assert "city.toml [matching]" in text
    assert "\n" not in text
    for words in says:
        assert words in text


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(TableError) as complaint:
        structure({"name": 1, "enabled": 2}, Params, "x")
    assert "name" in str(complaint.value)
    assert "enabled" in str(complaint.value)


def test_an_error_says_reason_and_what_it_concerns_on_one_line() -> None:
    error = DomainError(Reason.RIDE_NOT_FOUND, ride_id="gridport-1")
    assert str(error) == "RIDE_NOT_FOUND: ride not found (ride_id=gridport-1)"
    assert invalid("stops[0]", "is missing").violations[0].field == "stops[0]"


def test_chance_of_one_name_is_the_same_again_and_of_another_name_its_own() -> None:
    draws = [generator(7, "riders", 3).random(), generator(7, "riders", 3).random(), generator(7, "drivers", 3).random()]
    assert draws[0] == draws[1] != draws[2]
    assert generator(8, "riders", 3).random() != draws[0]


def test_degrees_survive_their_integers_to_a_centimetre() -> None:
    degrees = np.array([-180.0, -74.0060123, 0.0, 40.7128456, 180.0])
    assert np.abs(from_e7(to_e7(degrees)) - degrees).max() <= 0.5e-7
