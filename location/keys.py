"""Every key of location in Valkey. None has a TTL: the sweeper forgets what is old, and nothing here is irreplaceable.

Per bucket, hash tag `{city:bucket}`, so that all that is known of a driver sits in one slot:

    location:1:{manhattan:0}:positions   hash    driver id -> record of layout POSITION (last fix, kept for a while when silent)
    location:1:{manhattan:0}:states      hash    driver id -> record of layout STATE
    location:1:{manhattan:0}:receipts    zset    driver id by receipt time: those not yet found silent
    location:1:{manhattan:0}:silent      zset    driver id by receipt time: found silent, the record awaits removal
    location:1:{manhattan:0}:occupancy   hash    cell -> how many drivers its set holds; no field for an empty cell
    location:1:{manhattan:0}:cell:CELL   GEO set drivers of an index cell that are available and in `receipts`

Per city, hash tag `{city}`:

    location:1:{manhattan}:epoch         string  the name of the present states, made by whoever first asks
    location:1:{manhattan}:told          string  the epoch of which all states have been told
    location:1:{manhattan}:session       string  the newest session id given out

The 1 is the layouts' version: records of another one live under other keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId

_ROOT = "location:1"


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """The keys of one bucket. `scripted` is their order in every script's KEYS."""

    scripted: tuple[str, ...]
    cell_prefix: str

    @property
    def positions(self) -> str:
        """Hash of position records."""
        return self.scripted[0]

    @property
    def occupancy(self) -> str:
        """Hash of drivers per cell."""
        return self.scripted[3]


@dataclass(frozen=True, slots=True)
class CityKeys:
    """The keys of a city as a whole."""

    epoch: str
    told: str
    session: str


def bucket_keys(city_id: CityId, bucket: int) -> BucketKeys:
    """The keys of a bucket."""
    root = f"{_ROOT}:{{{city_id}:{bucket}}}"
    scripted = tuple(f"{root}:{name}" for name in ("positions", "states", "receipts", "occupancy", "silent"))
    return BucketKeys(scripted, f"{root}:cell:")


def city_keys(city_id: CityId) -> CityKeys:
    """The keys of a city as a whole."""
    root = f"{_ROOT}:{{{city_id}}}"
    return CityKeys(f"{root}:epoch", f"{root}:told", f"{root}:session")


def cell_name(cell: int) -> str:
    """A cell as keys and fields name it, and as the scripts make it from a record: hexadecimal digits."""
    return f"{cell:x}"
