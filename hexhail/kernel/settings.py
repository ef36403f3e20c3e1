"""Where things are, from the environment: read in one place, into one frozen object. Policies come from a city's TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable HEXHAIL_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="HEXHAIL_", frozen=True, extra="forbid")

    data_dir: Path = Field(default_factory=lambda: user_data_path("hexhail"), description="Keys and the embedded stores' data.")
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("hexhail"), description="What can be computed again: travel-time tables."
    )
    data: Path = Field(default=Path("../shared/data"), description="Real requests and roads.")
    cities_dir: Path | None = Field(default=None, description="Further city TOML files, beside the built-in ones.")
    redis_url: str | None = Field(default=None, description="Valkey or Redis; none means the embedded one.")
    postgres_dsn: str | None = Field(default=None, description="PostgreSQL; none means the embedded one.")
    location_address: str = Field(default="127.0.0.1:7601", description="Where the location service listens.")
    matching_address: str = Field(default="127.0.0.1:7602", description="Where the matching service listens.")
    pricing_address: str = Field(default="127.0.0.1:7603", description="Where the pricing service listens.")
    traffic_address: str = Field(default="127.0.0.1:7604", description="Where the learner of traffic says whether it is well.")
    metrics_address: str = Field(default="", description="Where counters are shown, as http://ADDRESS/metrics; empty: nowhere.")
    max_stream_age_s: float | None = Field(
        default=None,
        gt=0,
        lt=1e6,
        description="Streams end with OK at about this age, to connect again; none means 600 for workers, else never.",
    )
    worker_address: str = Field(
        default="", description="Set by `serve --workers` for its children: they share a port, and each answers here alone."
    )
    clock_offset_ms: int = Field(default=0, description="Added to the machine's time in everything but tokens.")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
