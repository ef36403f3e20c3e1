"""From a city's `[routing]` table to its router."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from hexhail.kernel.clock import SystemClock
from hexhail.kernel.tables import structure
from routing.crow import CrowParams, CrowRouter
from routing.engine_city import ENGINE_KINDS, FALLBACK, dialect_for, engine_source, fallback_of
from routing.grid import GridParams, grid_graph
from routing.hierarchy import HierarchyRouter, load_hierarchy
from routing.joining import JoinedRouter
from routing.learner import LearnerParams
from routing.loaders import load_road_graph
from routing.patches import patches_of
from routing.published import PublishedSource
from routing.road import RoadParams, RoadRouter
from routing.sources import FixedSource
from routing.tables import MAX_NODES, load_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hexhail.cities import Cities, City
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.settings import Settings
    from routing.graph import RoadGraph
    from routing.model import Router
    from routing.sources import RouterSource

KINDS = ("crow", "road", "grid")

TRAFFIC: Final = "traffic"
"""The sub-section of `[routing]` that asks for a learner (LearnerParams)."""


@dataclass(frozen=True, slots=True)
class LearnedCity:
    """A city whose traffic is learned.

    router : of its streets, as they are where no traffic is known
    path : where its traffic is published
    """

    router: JoinedRouter
    path: Path
    params: LearnerParams


def router_for(
    table: Mapping[str, object], time_zone: str, data_dir: Path, cache_dir: Path | None, where: str = "routing"
) -> Router:
    """Which router does a city's `[routing]` table ask for?

    `kind` is one of: `crow` (with the fields of CrowParams, less the time zone), `road` (with `file`, relative to the data
    folder, and the fields of RoadParams), `grid` (with the fields of GridParams and of RoadParams). Of roads, up to MAX_NODES
    junctions get all-pairs tables, more a hierarchy. Where it is `osrm` or `valhalla`, the router of the fallback, which
    is in this process: the engine is asked by `sources_of`. `where` begins the keys in complaints.

    Raises ValueError for unknown keys and unfit values; FileNotFoundError for a road file that is not there;
    RoutingFileError for one that cannot be used.
    """
    table = _without_traffic(table)
    rest = dict(table)
    kind = rest.pop("kind", None)
    if kind == "crow":
        if "time_zone" in rest:
            raise ValueError(f"{where}: unknown keys: time_zone (it is the city's)")
        return CrowRouter(structure(rest | {"time_zone": time_zone}, CrowParams, where))
    if kind in ENGINE_KINDS:
        dialect_for(table, time_zone)
        return router_for(fallback_of(table), time_zone, data_dir, cache_dir, f"{where}.{FALLBACK}")
    road_names = {field.name for field in fields(RoadParams)}
    road = structure({key: value for key, value in rest.items() if key in road_names}, RoadParams, where)
    rest = {key: value for key, value in rest.items() if key not in road_names}
    if kind == "grid":
        graph = grid_graph(structure(rest, GridParams, where))
    elif kind == "road":
        graph = _graph_of_file(rest, data_dir, where)
    else:
        raise ValueError(f"{where}: kind is {kind!r}, not one of {', '.join((*KINDS, *ENGINE_KINDS))}")
    if graph.n_nodes > MAX_NODES:
        return HierarchyRouter(graph, load_hierarchy(graph, cache_dir), road)
    return RoadRouter(graph, load_tables(graph, cache_dir), road, cache_dir)


def router_of(city: City, settings: Settings) -> Router:
    """A city's router, as its file describes it. Raises what `router_for` raises, all of it ValueError or OSError."""
    return router_for(city.policies["routing"], city.time_zone, settings.data, settings.cache_dir / "routing")


def sources_of(cities: Cities, settings: Settings) -> dict[CityId, RouterSource]:
    """Where each city's travel times come from. Raises as `router_of`."""
    return {city.city_id: _source_of(city, settings) for city in cities}


def _source_of(city: City, settings: Settings) -> RouterSource:
    table = city.policies["routing"]
    own: RouterSource
    if is_learned(city):
        learned = learned_city(city, settings)
        patches = len(patches_of(learned.router.free_flow))
        own = PublishedSource(learned.router, learned.path, patches, SystemClock(settings.clock_offset_ms))
    else:
        own = FixedSource(router_of(city, settings))
    if table.get("kind") not in ENGINE_KINDS:
        return own
    return engine_source(city.city_id, _without_traffic(table), city.time_zone, own)


def _without_traffic(table: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in table.items() if key != TRAFFIC}


def is_learned(city: City) -> bool:
    """Is this city's traffic learned from its fleet?"""
    return TRAFFIC in city.policies["routing"]


def learned_city(city: City, settings: Settings) -> LearnedCity:
    """What its learner, and those who ask it, need to know. Its traffic is kept in the data folder, one folder a city.

    Raises as `router_for`; ValueError for a wrong `[routing.traffic]` section, and for a city without streets.
    """
    table = city.policies["routing"]
    section = table.get(TRAFFIC)
    if not isinstance(section, dict):
        raise ValueError(f"{city.city_id}: routing.{TRAFFIC} is {section!r}, not a section")  # noqa: TRY004 - a file's fault
    router = router_of(city, settings)
    if not isinstance(router, JoinedRouter):
        problem = f"traffic is learned on roads, and {table.get('kind')} has none"
        raise ValueError(f"{city.city_id}: routing.{TRAFFIC}: {problem}")  # noqa: TRY004 - a file's fault
    folder = settings.data_dir / "traffic" / city.city_id
    if isinstance(router, RoadRouter):
        router.tables_dir = folder
    return LearnedCity(router, folder / "traffic.npz", _learner_params(section, router.params, f"routing.{TRAFFIC}"))


def _learner_params(section: Mapping[str, object], road: RoadParams, where: str) -> LearnerParams:
    """What is usual where nothing is known is said once: it is the router's time_factor."""
    rules = section.get("traffic", {})
    if isinstance(rules, dict):
        if "usual_slowness" in rules:
            raise ValueError(f"{where}.traffic: unknown keys: usual_slowness (it is routing.time_factor)")
        section = {**section, "traffic": {**rules, "usual_slowness": road.time_factor}}
    return structure(section, LearnerParams, where)


def _graph_of_file(rest: dict[str, object], data_dir: Path, where: str) -> RoadGraph:
    name = rest.pop("file", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: file is missing: the road network's file, relative to the data folder")
    if rest:
        raise ValueError(f"{where}: unknown keys: {', '.join(sorted(rest))}")
    path = data_dir / name
    if not path.is_file():
        raise FileNotFoundError(f"the road network {path} is not there: set HEXHAIL_DATA to the folder that holds {name}")
    graph, _ = load_road_graph(path)
    return graph
