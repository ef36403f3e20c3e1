"""Where a city's travel times come from, as its file says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hexhail.cities import Cities, City, load_city
from hexhail.kernel.settings import Settings
from routing.city import is_learned, learned_city, router_for, sources_of
from routing.engine import EngineSource
from routing.published import PublishedSource
from routing.sources import FixedSource

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from routing.sources import RouterSource

STREETS: dict[str, object] = {"kind": "grid", "south_west_lat": 40.4865, "south_west_lng": -74.0177, "rows": 6, "columns": 6}
CROW: dict[str, object] = {"kind": "crow", "detour_factor": 1.3, "speed_kmh_by_hour": [20.0] * 24}
ENGINE: dict[str, object] = {"kind": "osrm", "url": "http://127.0.0.1:9"}


def city_with(routing: Mapping[str, object]) -> City:
    city = load_city("gridport", Settings())
    return replace(city, policies={**city.policies, "routing": routing})


async def source_of(routing: Mapping[str, object], folder: Path) -> RouterSource:
    settings = Settings(data_dir=folder, cache_dir=folder / "cache")
    city = city_with(routing)
    source = sources_of(Cities([city]), settings)[city.city_id]
    await source.aclose()
    return source


@pytest.mark.parametrize(
    ("routing", "kind", "loops"),
    [
        (STREETS, FixedSource, 0),
        (STREETS | {"traffic": {}}, PublishedSource, 1),
        (CROW, FixedSource, 0),
        (ENGINE | {"fallback": CROW}, EngineSource, None),
        (ENGINE | {"fallback": STREETS, "traffic": {}}, EngineSource, None),
    ],
)
async def test_a_citys_file_names_its_source(
    tmp_path: Path, routing: Mapping[str, object], kind: type, loops: int | None
) -> None:
    source = await source_of(routing, tmp_path)
    assert type(source) is kind
    assert loops is None or len(source.loops()) == loops


async def test_what_an_engine_falls_back_to_may_be_learned(tmp_path: Path) -> None:
    plain = await source_of(ENGINE | {"fallback": STREETS}, tmp_path)
    learned = await source_of(ENGINE | {"fallback": STREETS, "traffic": {}}, tmp_path)
    assert set(learned.loops()) > set(plain.loops())


def test_traffic_is_learned_on_streets_only(tmp_path: Path) -> None:
    city = city_with(CROW | {"traffic": {}})
    assert is_learned(city)
    with pytest.raises(ValueError, match=r"routing\.traffic: traffic is learned on roads, and crow has none"):
        learned_city(city, Settings(data_dir=tmp_path, cache_dir=tmp_path))


@pytest.mark.parametrize("section", [True, 7, "yes", []])
def test_a_section_that_is_none_is_refused(tmp_path: Path, section: object) -> None:
    city = city_with(STREETS | {"traffic": section})
    with pytest.raises(ValueError, match=r"routing\.traffic is .*, not a section"):
        learned_city(city, Settings(data_dir=tmp_path, cache_dir=tmp_path))


def test_a_wrong_figure_of_the_section_is_refused_by_name(tmp_path: Path) -> None:
    for section, complaint in (
        ({"publish_period_s": 0}, "publish_period_s"),
        ({"moves": {"near_m": -1}}, "near_m"),
        ({"x": 1}, "x"),
    ):
        city = city_with(STREETS | {"traffic": section})
        with pytest.raises(ValueError, match=complaint):
            learned_city(city, Settings(data_dir=tmp_path, cache_dir=tmp_path))


def test_a_router_is_made_whatever_is_learned_of_its_traffic(tmp_path: Path) -> None:
    with_traffic, without = (router_for(table, "UTC", tmp_path, None) for table in (STREETS | {"traffic": {}}, STREETS))
    assert with_traffic.version == without.version
