"""Every Valkey key of matching: its shape, its lifetime, its hash tag."""

from __future__ import annotations


def driver_claim(city_id: str, bucket: int, driver_id: str) -> str:
    """String: owner|made_at_ms|expires_at_ms; while an offer is live. Expires with the offer, and some seconds."""
    return f"m:claim:{{{city_id}:{bucket}}}:d:{driver_id}"


def driver_claims(city_id: str) -> str:
    """Pattern: all claims on drivers of a city."""
    return f"m:claim:{{{city_id}:*}}:d:*"


def driver_of_claim(key: str) -> str:
    """The driver that a claim is on."""
    return key.partition("}:d:")[2]


def ride_claim(city_id: str, ride_id: str) -> str:
    """String: owner|made_at_ms|expires_at_ms; for the instant of accepting. Expires after 5 minutes."""
    return f"m:claim:{{{city_id}:{ride_id}}}:r"


def session(city_id: str, bucket: int, driver_id: str) -> str:
    """String: worker|expires_at_ms; while a driver's WatchOffers stream is open. Renewed every few seconds."""
    return f"m:session:{{{city_id}:{bucket}}}:{driver_id}"


def sessions(city_id: str) -> str:
    """Pattern: all sessions of a city."""
    return f"m:session:{{{city_id}:*}}:*"


def notices(city_id: str) -> str:
    """Channel (sharded pub/sub): what changed, for the watchers of all workers."""
    return f"m:notices:{{{city_id}}}"


def events(city_id: str) -> str:
    """Stream: the city's events in the order of the log, and an entry where an epoch begins. About `stream_length` entries."""
    return f"m:events:{{{city_id}}}"
