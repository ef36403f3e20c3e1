"""From a city's `[routing]` table to an engine's source and its fallback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.cities import Cities, load_city
from hexhail.kernel.settings import Settings
from routing.city import router_for, router_of, sources_of
from routing.crow import CrowRouter
from routing.engine import EngineSource
from routing.road import RoadRouter
from tests.routing.engines import JUNCTIONS, FakeOsrm, FakeValhalla, served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.cities import City

CROW = {"kind": "crow", "detour_factor": 1.4, "speed_kmh_by_hour": [20.0] * 24}
OSRM: dict[str, Any] = {"kind": "osrm", "url": "http://127.0.0.1:5000", "fallback": CROW}
VALHALLA: dict[str, Any] = {"kind": "valhalla", "url": "http://127.0.0.1:8002", "fallback": CROW}
AT = np.array(JUNCTIONS)


def city_with(table: Mapping[str, object]) -> City:
    city = load_city("gridport", Settings())
    return replace(city, policies={**city.policies, "routing": table})


def made(table: Mapping[str, object]) -> object:
    return router_for(table, "UTC", Path(), None)


@pytest.mark.parametrize(("table", "engine"), [(OSRM, FakeOsrm()), (VALHALLA, FakeValhalla())], ids=["osrm", "valhalla"])
async def test_a_citys_source_asks_its_engine_and_its_router_is_the_fallback(
    tmp_path: Path, table: dict[str, Any], engine: FakeOsrm | FakeValhalla
) -> None:
    settings = Settings(cache_dir=tmp_path)
    with served(engine) as server:
        city = city_with({**table, "url": server.url, "deadline_s": 60.0})
        source = sources_of(Cities([city]), settings)[city.city_id]
        answered = await source.ask(lambda router: router.times_s(AT[:1], AT[1:2], 0))
        await source.aclose()

    assert isinstance(source, EngineSource)
    assert answered.value[0, 0] == pytest.approx(130)
    assert isinstance(router_of(city, settings), CrowRouter)


def test_the_fallback_may_be_any_router_of_this_process(tmp_path: Path) -> None:
    grid = load_city("gridport", Settings()).policies["routing"]

    assert isinstance(router_for({**OSRM, "fallback": grid}, "UTC", Path(), tmp_path), RoadRouter)


WRONG = [
    ({**OSRM, "fallback": None}, r"routing: fallback is missing"),
    ({key: value for key, value in OSRM.items() if key != "fallback"}, r"routing: fallback is missing.*osrm"),
    ({**OSRM, "fallback": VALHALLA}, r"routing\.fallback: kind is 'valhalla'"),
    ({**OSRM, "fallback": {"kind": "balloon"}}, r"routing\.fallback: kind is 'balloon'"),
    ({**OSRM, "fallback": {**CROW, "detour_factor": 0.5}}, r"detour_factor is 0.5, not 1 or more @ routing\.fallback"),
    ({**OSRM, "fallback": {**CROW, "speed": 1}}, r"unknown keys: speed @ routing\.fallback"),
    ({**OSRM, "fallback": {"kind": "road"}}, r"routing\.fallback: file is missing"),
    ({"kind": "osrm", "fallback": CROW}, r"required, and missing @ routing\.url"),
    ({**OSRM, "url": 5000}, r"5000 is not a text @ routing\.url"),
    ({**OSRM, "deadline": 1.0}, r"unknown keys: deadline @ routing"),
    ({**OSRM, "costing": "auto"}, r"unknown keys: costing @ routing"),
    ({**VALHALLA, "profile": "car"}, r"unknown keys: profile @ routing"),
    ({**OSRM, "deadline_s": 0.0}, r"deadline_s is 0"),
    ({**OSRM, "deadline_s": "soon"}, r"'soon' is not a number @ routing\.deadline_s"),
    ({**OSRM, "snap_limit_m": -1.0}, r"snap_limit_m is -1"),
    ({**OSRM, "retry_wait_s": -1.0}, r"retry_wait_s is -1"),
    ({**OSRM, "attempts": 0}, r"attempts is 0"),
    ({**OSRM, "questions_at_once": 0}, r"questions_at_once is 0"),
    ({**OSRM, "requests_at_once": 0}, r"requests_at_once is 0"),
    ({**OSRM, "top_speed_mps": 0.0}, r"top_speed_mps is 0"),
    ({**OSRM, "terminal_s": -1.0}, r"terminal_s is -1"),
    ({**OSRM, "max_table_size": 1}, r"max_table_size is 1"),
    ({**OSRM, "profile": "../nearest"}, r"profile is '\.\./nearest'"),
    ({**OSRM, "profile": ""}, r"profile is ''"),
    ({**VALHALLA, "costing": "auto/"}, r"costing is 'auto/'"),
    ({**VALHALLA, "max_matrix_location_pairs": 0}, r"max_matrix_location_pairs is 0"),
    ({**VALHALLA, "departure": 1}, r"1 is neither true nor false @ routing\.departure"),
    ({**OSRM, "breaker": {"failures": 0}}, r"failures is 0, not 1 or more @ routing\.breaker"),
    ({**OSRM, "breaker": {"pause": 1.0}}, r"unknown keys: pause @ routing\.breaker"),
]


@pytest.mark.parametrize(("table", "complaint"), WRONG)
def test_what_is_wrong_is_named(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        made(table)
    with pytest.raises(ValueError, match=complaint):
        sources_of(Cities([city_with(table)]), Settings())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:5000",
        "ftp://host",
        "http://",
        "http://:5000",
        "http://host:99999",
        "http://host:x",
        "http://host/a b",
        "http://hóst",
        "http://host\n",
        "http://me:hunter2@host",
        "http://host?x=1",
        "http://host#x",
        "http://[::1",
    ],
)
def test_what_is_no_address_of_an_engine_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="url ") as caught:
        made({**OSRM, "url": url})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host", "https://host:8443/osrm/", "http://[::1]:5000", "http://10.0.0.1:5000/a/b"])
def test_what_is_an_address_is_taken(url: str) -> None:
    assert isinstance(made({**OSRM, "url": url}), CrowRouter)


async def test_a_path_of_the_address_comes_before_the_engines_own(tmp_path: Path) -> None:
    engine = FakeOsrm()
    with served(engine) as server:
        paths = []

        def note(handler: Any) -> None:
            paths.append(handler.path)
            handler.close_connection = True

        server.trick = note
        city = city_with({**OSRM, "url": f"{server.url}/osrm/", "attempts": 1})
        source = sources_of(Cities([city]), Settings(cache_dir=tmp_path))[city.city_id]
        await source.ask(lambda router: router.covers(AT[:1]))
        await source.aclose()

    assert paths == ["/osrm/nearest/v1/driving/-74.000000,40.700000?number=1&generate_hints=false"]
