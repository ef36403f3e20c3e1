"""What a city's file says of its traffic, for the learner and for those who ask it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.cities import City, load_city
from hexhail.kernel.settings import Settings
from routing.city import learned_city

if TYPE_CHECKING:
    from pathlib import Path


def gridport(folder: Path, **changes: Any) -> tuple[City, Settings]:
    settings = Settings(data_dir=folder, cache_dir=folder / "cache")
    city = load_city("gridport", settings)
    return replace(city, policies={**city.policies, "routing": {**city.policies["routing"], **changes}}), settings


def test_where_nothing_is_known_the_citys_own_factor_is_thought(tmp_path: Path) -> None:
    known = learned_city(*gridport(tmp_path, time_factor=1.8, traffic={"traffic": {"trust_s": 20.0}}))
    assert known.params.traffic.usual_slowness == known.router.params.time_factor == 1.8
    assert known.params.traffic.trust_s == 20.0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"traffic": {"traffic": {"usual_slowness": 2.0}}}, "usual_slowness .it is routing.time_factor"),
        ({"traffic": {"traffic": 3}}, "routing.traffic"),
        ({"traffic": {"publish_period_s": 3_600}}, "publish_period_s must be 1 to 900"),
        ({"traffic": {}, "time_factor": 20.0}, "usual_slowness is not between"),
        ({"traffic": True}, "not a section"),
    ],
)
def test_an_unfit_section_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        learned_city(*gridport(tmp_path, **changes))
