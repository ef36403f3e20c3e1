"""Cities: the unit of configuration and of sharding. One TOML file each; policies are checked by whoever owns them."""

from hexhail.cities.loader import CityError, load_city, load_city_file, policy_of
from hexhail.cities.model import Cities, City, Product, Zone, ZoneKind

__all__ = ["Cities", "City", "CityError", "Product", "Zone", "ZoneKind", "load_city", "load_city_file", "policy_of"]
