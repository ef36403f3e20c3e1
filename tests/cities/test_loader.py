"""Cities: the built-in ones load whole, and whatever is wrong with a file is one line that names file and key."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely.geometry

from hexhail.cities import Cities, CityError, ZoneKind, load_city, load_city_file, policy_of
from hexhail.cities.loader import SECTIONS, city_files
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import CityId
from hexhail.kernel.settings import Settings
from location.params import LocationParams
from matching.params import MatchingParams
from pricing.params import PricingParams
from routing.city import KINDS, router_for
from simulator.params import SimulatorParams

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = sorted(city_files(Settings()))
OWNERS: dict[str, type[Any]] = {
    "location": LocationParams,
    "matching": MatchingParams,
    "pricing": PricingParams,
    "simulator": SimulatorParams,
}
POLYGON = "polygon = [[48.8, 2.2], [48.8, 2.4], [48.9, 2.4], [48.9, 2.2]]"
GOOD = f"""
[city]
id = "town"
name = "Town"
time_zone = "Europe/Paris"
currency_code = "EUR"
capabilities = ["economy", "xl"]

[city.area]
{POLYGON}

[[city.products]]
id = "economy"
capabilities = ["economy"]
"""
ZONES = """
[[zones]]
id = "palace"
kind = "named"
polygon = [[48.85, 2.30], [48.85, 2.31], [48.86, 2.31], [48.86, 2.30]]

[[zones]]
id = "market"
kind = "no_pickup"
polygon = [[48.84, 2.32], [48.84, 2.33], [48.85, 2.33], [48.85, 2.32]]
pickup_points = [[48.845, 2.335], [48.855, 2.325]]
"""
SQUARE = shapely.geometry.mapping(shapely.box(-74.03, 40.69, -73.90, 40.89))
"""Around all of Manhattan."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data folder in which every area that a built-in city names is a square."""
    file = tmp_path / "manhattan" / "nyc_single_polygon.geojson"
    file.parent.mkdir()
    file.write_text(json.dumps({"type": "Feature", "geometry": SQUARE}))
    return Settings(data=tmp_path)


def written(folder: Path, text: str) -> Path:
    path = folder / "town.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("city_id", BUILT_IN)
def test_a_built_in_city_loads(settings: Settings, city_id: str) -> None:
    city = load_city(city_id, settings)
    assert city.city_id == city_id
    assert city.zone_info.key == city.time_zone
    assert city.products


@pytest.mark.parametrize("city_id", BUILT_IN)
@pytest.mark.parametrize("section", OWNERS)
def test_every_section_of_a_built_in_city_is_understood_by_its_owner(settings: Settings, city_id: str, section: str) -> None:
    assert isinstance(policy_of(load_city(city_id, settings), section, OWNERS[section]), OWNERS[section])


@pytest.mark.parametrize("city_id", BUILT_IN)
def test_every_built_in_citys_routing_names_a_router(settings: Settings, city_id: str) -> None:
    table = load_city(city_id, settings).policies["routing"]
    assert table["kind"] in KINDS
    if table["kind"] == "road":
        with pytest.raises(FileNotFoundError):
            router_for(table, "UTC", settings.data, None)
    else:
        router_for(table, "UTC", settings.data, None)


def test_every_section_has_an_owner() -> None:
    assert set(SECTIONS) == {*OWNERS, "routing"}


def test_a_section_that_is_not_there_gives_its_owners_defaults(tmp_path: Path) -> None:
    city = load_city_file(written(tmp_path, GOOD), tmp_path)
    for section, owner in OWNERS.items():
        assert policy_of(city, section, owner) == owner()


def test_a_complaint_of_a_section_names_file_section_and_key(tmp_path: Path) -> None:
    city = load_city_file(written(tmp_path, GOOD + "[matching.offers]\nsearch_limit_s = 'long'\n"), tmp_path)
    with pytest.raises(CityError, match=r"'long' is not a number @ town\.toml \[matching\]\.offers\.search_limit_s"):
        policy_of(city, "matching", MatchingParams)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[city]", "[city", "not TOML"),
        ("[city]", "[citty]", "unknown sections citty"),
        ("[city.area]", "[weather]\n[city.area]", "unknown sections weather"),
        ('name = "Town"', 'nmae = "Town"', "unknown keys: nmae"),
        ('name = "Town"', "", "name"),
        ('name = "Town"', "name = 3", "3 is not a text"),
        ('id = "town"', 'id = "Town hall"', "city_id"),
        ("Europe/Paris", "Europe/Atlantis", "'Europe/Atlantis' is not a time zone"),
        ("Europe/Paris", "", "'' is not a time zone"),
        ("Europe/Paris", "../Europe/Paris", "is not a time zone"),
        ('["economy", "xl"]', '["economy", "economy"]', "capabilities name one twice"),
        ('["economy", "xl"]', '["e c"]', "capabilities holds characters"),
        ('["economy", "xl"]', str([f"c{n}" for n in range(33)]), "capabilities are more than 32"),
        ('capabilities = ["economy"]', 'capabilities = ["fly"]', "product economy: capabilities names 'fly'"),
        ('"EUR"', '"EUR"\nindex_resolution = 7', "surge_resolution <= index_resolution"),
        ('"EUR"', '"EUR"\nindex_resolution = 13', "index_resolution <= 12"),
        ('"EUR"', '"EUR"\nbuckets = 0', "buckets must be at least 1"),
        ('"EUR"', '"EUR"\nbuckets = 1.5', "1.5 is not a whole number"),
        ('"EUR"', '"EUR"\nfreshness_limit_s = 0', "freshness_limit_s must be above 0"),
        (POLYGON, "polygon = [[48.8, 2.2], [48.8, 2.4]]", "area"),
        (POLYGON, "polygon = [[48.8]]", "area"),
        ("polygon = [[48.8, 2.2]", "polygon = [[98.8, 2.2]", "latitude"),
        ("[48.9, 2.4], [48.9, 2.2]]", "[48.9, 2.2], [48.9, 2.4]]", "not a valid polygon"),
        (POLYGON, "", "polygon or geojson"),
        ("polygon =", 'geojson = "x"\npolygon =', "polygon or geojson"),
        ('[[city.products]]\nid = "economy"\ncapabilities = ["economy"]', "[[city.products]]", "products"),
        ('id = "economy"', 'id = "a b"', "products"),
    ],
)
def test_a_complaint_is_one_line_that_names_file_and_fault(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(CityError) as complaint:
        load_city_file(written(tmp_path, text), tmp_path)
    line = str(complaint.value)
    assert "town.toml" in line
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (ZONES, "[zones]\nid = 'palace'", "town.toml"),
        (ZONES, "[[zones]]", "town.toml.zones[0].id"),
        ('id = "market"', 'id = "palace"', "zones name 'palace' twice"),
        ('id = "market"', 'id = "the market"', "id holds characters"),
        ('id = "market"', 'id = ""', "id is empty"),
        ('id = "market"', "", "required, and missing @ town.toml.zones[1].id"),
        ('id = "market"', 'id = "market"\nname = "Market"', "unknown keys: name @ town.toml.zones[1]"),
        ('kind = "no_pickup"', 'kind = "swamp"', "kind 'swamp' is none of named, no_pickup"),
        ('kind = "no_pickup"', 'kind = "named"', "pickup_points are for no_pickup zones only"),
        ("[48.84, 2.32]", "[98.84, 2.32]", "polygon holds a corner that is not [latitude, longitude]"),
        ("[48.84, 2.32]", "[48.84]", "town.toml.zones[1].polygon"),
        ("[[48.84, 2.32], [48.84, 2.33], [48.85, 2.33], [48.85, 2.32]]", "[]", "zone market: not a valid polygon"),
        ("[[48.84, 2.32], [48.84, 2.33], [48.85, 2.33], [48.85, 2.32]]", "[[1, 2], [3, 4]]", "zone market: polygon"),
        ("[48.85, 2.33], [48.85, 2.32]", "[48.85, 2.32], [48.85, 2.33]", "zone market: not a valid polygon"),
        ("48.8, 2.2], [48.8, 2.4", "48.852, 2.2], [48.852, 2.4", "zone market: lies outside the service area altogether"),
        ("[48.845, 2.335]", "[148.845, 2.335]", "pickup_points holds one that is not [latitude, longitude]"),
        ("[48.855, 2.325]", "[48.905, 2.325]", "zone market: pickup point 2 lies outside the service area"),
        ("[48.845, 2.335]", "[48.845, 2.325]", "zone market: pickup point 1 lies in the no-pickup zone market"),
    ],
)
def test_a_complaint_of_a_zone_is_one_line_that_names_file_and_fault(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (GOOD + ZONES).replace(old, new, 1)
    assert text != GOOD + ZONES
    with pytest.raises(CityError) as complaint:
        load_city_file(written(tmp_path, text), tmp_path)
    line = str(complaint.value)
    assert "town.toml" in line
    assert says in line
    assert "\n" not in line


def test_a_pickup_point_in_another_no_pickup_zone_is_refused(tmp_path: Path) -> None:
    text = (GOOD + ZONES).replace('kind = "named"', 'kind = "no_pickup"').replace("[48.855, 2.325]", "[48.855, 2.305]")
    with pytest.raises(CityError, match="zone market: pickup point 2 lies in the no-pickup zone palace"):
        load_city_file(written(tmp_path, text), tmp_path)


def test_a_city_knows_its_zones_in_the_order_of_its_file(tmp_path: Path) -> None:
    palace, market = load_city_file(written(tmp_path, GOOD + ZONES), tmp_path).zones
    assert (palace.zone_id, palace.kind, palace.pickup_points) == ("palace", ZoneKind.NAMED, ())
    assert (market.zone_id, market.kind) == ("market", ZoneKind.NO_PICKUP)
    assert market.pickup_points == (Place(48.845, 2.335), Place(48.855, 2.325))
    assert market.area.bounds == (2.32, 48.84, 2.33, 48.85), "longitude, latitude, as shapely has them"
    assert load_city_file(written(tmp_path, GOOD), tmp_path).zones == ()


def test_the_built_in_cities_have_zones_of_both_kinds(settings: Settings) -> None:
    for city_id in BUILT_IN:
        assert {zone.kind for zone in load_city(city_id, settings).zones} == set(ZoneKind), city_id


def test_manhattans_zones_lie_in_the_real_manhattan(data_dir: Path) -> None:
    city = load_city("manhattan", Settings(data=data_dir))
    assert all(shapely.covers(city.area, zone.area) for zone in city.zones)


def test_a_file_that_is_not_there_or_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(CityError, match=r"absent\.toml"):
        load_city_file(tmp_path / "absent.toml", tmp_path)
    (tmp_path / "town.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CityError, match=r"town\.toml: not TOML"):
        load_city_file(tmp_path / "town.toml", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"type": "Point", "coordinates": [1, 2]}', '{"geometry": 3}', "no JSON", "null"]
)
def test_an_area_file_that_holds_no_area_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "area.geojson").write_text(text)
    area = 'geojson = "area.geojson"'
    with pytest.raises(CityError, match=r"town\.toml"):
        load_city_file(written(tmp_path, GOOD.replace(POLYGON, area)), tmp_path)


def test_without_the_data_folder_the_complaint_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(CityError, match="HEXHAIL_DATA"):
        load_city("manhattan", Settings(data=tmp_path / "nowhere"))


def test_a_city_that_is_not_there_is_told_with_those_that_are(settings: Settings) -> None:
    with pytest.raises(CityError, match="no city 'atlantis': known are gridport, manhattan"):
        load_city("atlantis", settings)


def test_ones_own_cities_stand_beside_the_built_in_and_before_them(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    (tmp_path / "gridport.toml").write_text(GOOD.replace('"town"', '"gridport"'))
    settings = Settings(cities_dir=tmp_path)
    assert load_city("town", settings).name == "Town"
    assert load_city("gridport", settings).name == "Town"
    (tmp_path / "village.toml").write_text(GOOD)
    with pytest.raises(CityError, match=r"village\.toml calls itself 'town'"):
        load_city("village", settings)


def test_a_city_knows_its_area_its_products_and_its_capabilities(tmp_path: Path) -> None:
    city = load_city_file(written(tmp_path, GOOD), tmp_path)
    assert city.covers(np.array([48.85, 40.0]), np.array([2.3, -74.0])).tolist() == [True, False]
    city.check_stop("stops[0]", Place(48.85, 2.3))
    for place, reason in ((Place(0, 0), Reason.OUTSIDE_SERVICE_AREA), (Place(float("nan"), 0), Reason.INVALID_FIELD)):
        with pytest.raises(DomainError) as refused:
            city.check_stop("stops[0]", place)
        assert refused.value.reason is reason
        assert "48" not in str(refused.value.metadata)
    assert city.capability_names(city.capability_mask(["xl", "economy"])) == ("economy", "xl")
    with pytest.raises(DomainError) as refused:
        city.product("helicopter")
    assert refused.value.reason is Reason.UNKNOWN_PRODUCT


def test_a_process_knows_the_cities_that_it_serves(tmp_path: Path) -> None:
    town = load_city_file(written(tmp_path, GOOD), tmp_path)
    cities = Cities([town, replace(town, city_id=CityId("village"))])
    assert [city.city_id for city in cities] == ["town", "village"]
    assert cities["town"] is town
    assert cities.named_in("ride_id", "town-01KACW4J000000000000000000") is town
    with pytest.raises(DomainError) as refused:
        cities.named_in("ride_id", "atlantis-01KACW4J000000000000000000")
    assert refused.value.reason is Reason.UNKNOWN_CITY
    assert [violation.field for violation in refused.value.violations] == ["ride_id"]
