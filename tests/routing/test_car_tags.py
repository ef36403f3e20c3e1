"""What the tags of a street say to a taxi."""

from __future__ import annotations

import pytest

from routing.car_tags import CLASS_SPEED_KMH, Direction, blocks, directions, is_street, parse_maxspeed, speed_kmh

AHEAD, BACK = Direction.FORWARD, Direction.BACKWARD
MPH = 1.609344


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"highway": "residential"}, True),
        ({"highway": "motorway_link"}, True),
        ({"highway": "service"}, True),
        ({"highway": "service", "service": "alley"}, True),
        ({"highway": "service", "service": "driveway"}, False),
        ({"highway": "service", "service": "parking_aisle"}, False),
        ({"highway": "footway"}, False),
        ({"highway": "cycleway"}, False),
        ({"highway": "construction"}, False),
        ({"highway": "residential", "area": "yes"}, False),
        ({}, False),
    ],
)
def test_streets_are_what_cars_use(tags: dict[str, str], expected: bool) -> None:
    assert is_street(tags) is expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, {AHEAD, BACK}),
        ({"oneway": "yes"}, {AHEAD}),
        ({"oneway": "true"}, {AHEAD}),
        ({"oneway": "1"}, {AHEAD}),
        ({"oneway": "-1"}, {BACK}),
        ({"oneway": "reverse"}, {BACK}),
        ({"oneway": "no"}, {AHEAD, BACK}),
        ({"oneway": "alternating"}, {AHEAD, BACK}),
        ({"oneway": "reversible"}, set()),
        ({"oneway": "perhaps"}, {AHEAD, BACK}),
        ({"junction": "roundabout"}, {AHEAD}),
        ({"junction": "circular"}, {AHEAD}),
        ({"junction": "roundabout", "oneway": "-1"}, {BACK}),
        ({"highway": "motorway"}, {AHEAD}),
        ({"highway": "motorway", "oneway": "no"}, {AHEAD, BACK}),
        ({"highway": "motorway", "oneway": "perhaps"}, {AHEAD}),
        ({"highway": "motorway_link"}, {AHEAD, BACK}),
        ({"oneway": "yes", "oneway:psv": "no"}, {AHEAD, BACK}),
        ({"oneway": "yes", "oneway:bicycle": "no"}, {AHEAD}),
        ({"access": "no"}, set()),
        ({"access": "private"}, set()),
        ({"access": "destination"}, {AHEAD, BACK}),
        ({"access": "agricultural;forestry"}, set()),
        ({"access": "agricultural;destination"}, {AHEAD, BACK}),
        ({"access": "no", "motor_vehicle": "yes"}, {AHEAD, BACK}),
        ({"motor_vehicle": "no"}, set()),
        ({"vehicle": "no", "psv": "yes"}, {AHEAD, BACK}),
        ({"motorcar": "no", "taxi": "designated"}, {AHEAD, BACK}),
        ({"motorcar": "yes", "taxi": "no"}, set()),
        ({"motor_vehicle:backward": "no"}, {AHEAD}),
        ({"vehicle": "no", "vehicle:forward": "yes"}, {AHEAD}),
        ({"bicycle": "no", "foot": "no"}, {AHEAD, BACK}),
    ],
)
def test_the_narrowest_rule_says_where_taxis_may_drive(tags: dict[str, str], expected: set[Direction]) -> None:
    assert directions({"highway": "residential"} | tags) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50", 50),
        ("50 km/h", 50),
        ("50km/h", 50),
        ("30 mph", 30 * MPH),
        ("25mph", 25 * MPH),
        ("7.5", 7.5),
        ("none", 130),
        ("walk", 7),
        ("DE:urban", 50),
        ("DE:rural", 100),
        ("XX:rural", 90),
        ("RU:urban", 60),
        ("GB:nsl_single", 60 * MPH),
        ("FR:zone30", 30),
        ("DE:zone:30", 30),
        ("GB:zone20", 20 * MPH),
        ("DE:zone0", None),
        ("50;30", 40),
        ("50|30", 40),
        ("50; signals", 50),
        ("['30 mph', '25 mph']", 27.5 * MPH),
        ("[40, 60]", 50),
        ("['30 mph'", None),
        ("[" * 10_000 + "]", None),
        ("signals", None),
        ("variable", None),
        ("0", None),
        ("-20", None),
        ("nan", None),
        ("9" * 400, None),
        ("DE:somewhere", None),
        ("fifty", None),
        ("", None),
    ],
)
def test_limits_are_understood_or_left_alone(text: str, expected: float | None) -> None:
    assert parse_maxspeed(text) == (None if expected is None else pytest.approx(expected))


def test_without_a_limit_one_drives_as_on_other_streets_of_the_class() -> None:
    street = {"highway": "residential"}

    assert speed_kmh(street, AHEAD) == CLASS_SPEED_KMH["residential"]
    assert speed_kmh(street, AHEAD, {"residential": 25.0}) == 25.0
    assert speed_kmh(street | {"maxspeed": "signals"}, AHEAD) == CLASS_SPEED_KMH["residential"]
    assert speed_kmh(street | {"maxspeed": "50", "maxspeed:backward": "30"}, AHEAD) == 50
    assert speed_kmh(street | {"maxspeed": "50", "maxspeed:backward": "30"}, BACK) == 30
    assert speed_kmh({}, AHEAD) == 30


def test_no_limit_at_all_is_believed_of_motorways_and_trunk_roads_only() -> None:
    assert speed_kmh({"highway": "motorway", "maxspeed": "none"}, AHEAD) == 130
    assert speed_kmh({"highway": "trunk_link", "maxspeed": "none"}, AHEAD) == 130
    assert speed_kmh({"highway": "living_street", "maxspeed": "none"}, AHEAD) == CLASS_SPEED_KMH["living_street"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, False),
        ({"highway": "crossing", "access": "no"}, False),
        ({"barrier": "bollard"}, True),
        ({"barrier": "bollard", "motor_vehicle": "yes"}, False),
        ({"barrier": "bollard", "access": "no", "taxi": "yes"}, False),
        ({"barrier": "gate"}, False),
        ({"barrier": "gate", "access": "private"}, True),
        ({"barrier": "toll_booth"}, False),
        ({"barrier": "kerb"}, False),
    ],
)
def test_bollards_stop_taxis_unless_it_says_that_they_may_pass(tags: dict[str, str], expected: bool) -> None:
    assert blocks(tags) is expected
