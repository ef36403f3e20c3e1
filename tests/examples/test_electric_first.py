"""The example of a policy of one's own: what it prefers, and that a city finds it by its entry point."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.cities import CityError
from matching.policies import GROUP, policy_for
from matching.ranking import RankingParams, ranking_by
from tests.matching.rides import candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matching.ranking import Candidates

PACKAGE = Path(__file__).parents[2] / "examples" / "electric_first"
WHERE = "town.toml [matching].ranking"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were installed: its folder and its metadata lie where Python looks."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = tmp_path / "hexhail_electric_first-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"][GROUP].items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.syspath_prepend(str(tmp_path))


def order(who: Candidates, options: Mapping[str, Any] | None = None) -> list[str]:
    params = RankingParams(policy="electric_first", options=options or {})
    ranking = ranking_by("electric_first", policy_for(params, WHERE)(who, params), who, params)
    return [who.driver_ids[row] for row in ranking.order]


def crowd(electric_eta_s: float) -> Candidates:
    """A petrol car a minute away, and an electric one so far away."""
    return candidates(
        "petrol",
        "electric",
        pickup_eta_s=np.array([60.0, electric_eta_s]),
        capabilities=(frozenset({"economy"}), frozenset({"economy", "electric"})),
    )


def test_an_electric_car_comes_first_within_its_head_start(installed: None) -> None:
    assert order(crowd(60.0 + 119.0)) == ["electric", "petrol"]
    assert order(crowd(60.0 + 121.0)) == ["petrol", "electric"]


def test_a_citys_options_are_the_policys_fields(installed: None) -> None:
    assert order(crowd(100.0), {"head_start_s": 30.0}) == ["petrol", "electric"]
    assert order(crowd(100.0), {"capability": "economy"}) == ["petrol", "electric"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"head_stat_s": 30.0},
            r"unknown keys: head_stat_s @ town\.toml \[matching\]\.ranking\.options, says .* of hexhail-electric-first 1\.0",
        ),
        ({"head_start_s": "soon"}, r"'soon' is not a number @ town\.toml \[matching\]\.ranking\.options\.head_start_s"),
        ({"head_start_s": -1.0}, "head_start_s must be above 0"),
    ],
)
def test_options_that_it_does_not_take_are_refused(installed: None, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CityError, match=complaint):
        policy_for(RankingParams(policy="electric_first", options=options), WHERE)


def test_a_driver_to_whom_no_way_leads_comes_last(installed: None) -> None:
    who = candidates("none", "far", pickup_eta_s=np.array([np.inf, 9_000.0]))
    assert order(who) == ["far", "none"]


def test_its_entry_point_is_what_is_found(installed: None) -> None:
    (found,) = entry_points(group=GROUP, name="electric_first")
    assert found.dist is not None
    assert found.dist.name == "hexhail-electric-first"
