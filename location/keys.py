"""Every key of location in Valkey. None has a TTL: the sweeper forgets what is old, and nothing here is irreplaceable.

Per bucket, hash tag `{city:bucket}`, so that all that is known of a driver sits in one slot:

    location:2:{manhattan:0}:records     hash    driver id -> record of layout RECORD (last position and state)
    location:2:{manhattan:0}:changes     zset    driver id by the stamp of its last change: those not yet found silent
    location:2:{manhattan:0}:silent      zset    driver id by receipt time: found silent, the position awaits removal
    location:2:{manhattan:0}:occupancy   hash    cell -> how many drivers its set holds; no field for an empty cell
    location:2:{manhattan:0}:stamp       string  the newest stamp of a change
    location:2:{manhattan:0}:epoch       string  the name of the present states of this bucket, made by whoever first asks
    location:2:{manhattan:0}:told        string  the epoch of which all states have been told
    location:2:{manhattan:0}:cell:CELL   GEO set drivers of an index cell that are available and in `changes`

Per city, hash tag `{city}`:

    location:2:{manhattan}:session       string  the newest session id given out

The 2 is the layouts' version: records of another one live under other keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hexhail.kernel.ids import CityId

_ROOT = "location:2"


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """The keys of one bucket. `scripted` is their order in every script's KEYS."""

    scripted: tuple[str, ...]
    cell_prefix: str

    @property
    def records(self) -> str:
        """Hash of records."""
        return self.scripted[0]

    @property
    def occupancy(self) -> str:
        """Hash of drivers per cell."""
        return self.scripted[3]

    @property
    def epoch(self) -> str:
        """Name of the present states."""
        return self.scripted[5]

    @property
    def told(self) -> str:
        """The epoch of which all states have been told."""
        return self.scripted[6]


def bucket_keys(city_id: CityId, bucket: int) -> BucketKeys:
    """The keys of a bucket."""
    root = f"{_ROOT}:{{{city_id}:{bucket}}}"
    names = ("records", "changes", "silent", "occupancy", "stamp", "epoch", "told")
    return BucketKeys(tuple(f"{root}:{name}" for name in names), f"{root}:cell:")


def session_key(city_id: CityId) -> str:
    """Where the newest session id of a city is."""
    return f"{_ROOT}:{{{city_id}}}:session"


def cell_name(cell: int) -> str:
    """A cell as keys and fields name it, and as the scripts make it from a record: hexadecimal digits."""
    return f"{cell:x}"
