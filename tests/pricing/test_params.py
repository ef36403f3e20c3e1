"""A city's [pricing] section is checked at start, and absent means the figures of docs/sources.md."""

from __future__ import annotations

from typing import Any

import pytest

from hexhail.cities import CityError, load_city
from hexhail.kernel.settings import Settings
from pricing.fare import FareParams
from pricing.params import PricingParams, pricing_params
from tests.pricing.world import city


def test_an_absent_section_means_the_defaults() -> None:
    assert pricing_params(city()) == PricingParams()


def test_gridport_is_quick_enough_for_its_shock_to_be_seen() -> None:
    params = pricing_params(load_city("gridport", Settings()))
    assert (params.quote_window_s, params.surge_period_s) == (20, 5)


def test_a_product_without_a_fare_of_its_own_has_the_citys() -> None:
    params = pricing_params(city(products={"economy": {}, "xl": {"base_minor": 800}}, fare={"base_minor": 400}))
    assert params.fare_of("xl") == FareParams(base_minor=800)
    assert params.fare_of("anything else") == FareParams(base_minor=400)


@pytest.mark.parametrize(
    "section",
    [
        {"surge_periods": 10},
        {"surge_period_s": 0},
        {"surge_period_s": "10"},
        {"surge_period_s": True},
        {"fare": {"base_minor": -1}},
        {"fare": {"base_minor": 5.5}},
        {"fare": {"base": 5}},
        {"surge": {"boundaries_milli": [500, 400]}},
        {"time_of_day": {"bands": [{"from_hour": 7, "to_hour": 6, "factor_milli": 1300}]}},
    ],
)
def test_wrong_figures_in_the_file_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(CityError, match=r"testport\.toml \[pricing\]"):
        pricing_params(city(**section))


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"surge_period_s": 0.0}, "surge_period_s"),
        ({"quote_expiry_s": -1.0}, "quote_expiry_s"),
        ({"quote_window_s": float("inf")}, "quote_window_s"),
        ({"quote_window_s": float("nan")}, "quote_window_s"),
        ({"surge_max_age_s": 5.0}, "surge_max_age_s"),
    ],
)
def test_wrong_figures_are_named(figures: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PricingParams(**figures)


def test_a_fare_for_a_product_that_is_not_sold_is_refused() -> None:
    pool = city(products={"economy": {}})
    wrong = {**pool.policies["pricing"], "products": {"pool": {}}}
    with pytest.raises(CityError, match="does not sell pool"):
        pricing_params(type(pool)(**{**vars(pool), "policies": {"pricing": wrong}}))
