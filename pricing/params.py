"""What a city's file says about prices: its section `[pricing]`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hexhail.cities import CityError, policy_of
from pricing.fare import FareParams, TimeOfDayParams
from pricing.surge import SurgeParams

if TYPE_CHECKING:
    from hexhail.cities import City


@dataclass(frozen=True, slots=True)
class PricingParams:
    """The parameters of every decision about prices; an absent section means the figures of docs/sources.md.

    `products` holds the fares of products that have their own, `fare` those of all others. Raises ValueError.
    """

    surge_period_s: float = 10.0
    """How often surge is recomputed. Source: P4 of docs/sources.md (30 s), and our choice of a quicker one."""
    surge_max_age_s: float = 300.0
    """How long the last good values may be used while newer inputs cannot be had. Source: our choice."""
    quote_window_s: float = 120.0
    """How long a quote counts as demand. Source: our choice, docs/decisions/0009."""
    quote_expiry_s: float = 120.0
    """How long a price is kept. Source: our choice."""
    fare: FareParams = field(default_factory=FareParams)
    products: dict[str, FareParams] = field(default_factory=dict)
    time_of_day: TimeOfDayParams = field(default_factory=TimeOfDayParams)
    surge: SurgeParams = field(default_factory=SurgeParams)

    def __post_init__(self) -> None:
        for name in ("surge_period_s", "surge_max_age_s", "quote_window_s", "quote_expiry_s"):
            if not (math.isfinite(getattr(self, name)) and 0.1 <= getattr(self, name) <= 86_400):
                raise ValueError(f"{name} is not of 0.1 to 86400")
        if self.surge_max_age_s < self.surge_period_s:
            raise ValueError("surge_max_age_s is shorter than surge_period_s")

    def fare_of(self, product_id: str) -> FareParams:
        """What does this product cost?"""
        return self.products.get(product_id, self.fare)


def pricing_params(city: City) -> PricingParams:
    """The parameters of this city. Raises CityError, also where a product has a fare that the city does not sell."""
    params = policy_of(city, "pricing", PricingParams)
    unsold = set(params.products) - {product.product_id for product in city.products}
    if unsold:
        raise CityError(f"{city.city_id}.toml [pricing.products]: the city does not sell {', '.join(sorted(unsold))}")
    return params
