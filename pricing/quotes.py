"""Is this a quote of ours? A quote travels as text and a signature over it; who changes either is found out.

A token is one byte of version, 32 bytes of HMAC-SHA256 over that byte and the text, and the text: JSON with sorted keys.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final

from hexhail.kernel.errors import DomainError, FieldViolation, Reason
from hexhail.kernel.ids import CityId, QuoteId, RiderId
from pricing.model import FareLine, FareLineKind, Quote, Receipt, StopE7, SurgeBasis

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_MAC_BYTES: Final = 32
_TEXT_AT: Final = len(_VERSION) + _MAC_BYTES


def sign_quote(quote: Quote, key: bytes) -> bytes:
    """The token that stands for this quote: equal quotes and keys give equal bytes. Raises ValueError for a bad key."""
    text = json.dumps(_table_of(quote), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    return _VERSION + _mac(text, key) + text


def open_quote(token: bytes, key: bytes) -> Quote:
    """Which quote does this token stand for? Raises QUOTE_ALTERED unless it is, bit for bit, one that `sign_quote` made."""
    text = token[_TEXT_AT:]
    if token[: len(_VERSION)] != _VERSION or not hmac.compare_digest(token[len(_VERSION) : _TEXT_AT], _mac(text, key)):
        raise _altered("quote_token", "does not carry a signature of ours over its content")
    try:
        return _quote_of(json.loads(text))
    except (ValueError, KeyError, TypeError):
        raise _altered("quote_token", "is signed, but not in the form of this version") from None


def check_quote(quote: Quote, *, city_id: str, rider_id: str, product: str, stops: Sequence[StopE7], now_ms: int) -> None:
    """May this rider have this ride for this quote now?

    Raises NOT_YOURS for another rider, QUOTE_ALTERED for another city, product or other stops, QUOTE_EXPIRED from its
    `expires_at_ms` on.
    """
    if quote.rider_id != rider_id:
        raise DomainError(Reason.NOT_YOURS, "the quote was given to another rider", quote_id=quote.quote_id)
    for field, same in (
        ("city_id", quote.city_id == city_id),
        ("product", quote.product == product),
        ("stops", quote.stops == tuple(stops)),
    ):
        if not same:
            raise _altered(field, "is not what the quote was given for", quote_id=quote.quote_id)
    if quote.expires_at_ms <= now_ms:
        raise DomainError(
            Reason.QUOTE_EXPIRED,
            "the quote has expired: ask for a new one",
            quote_id=quote.quote_id,
            expires_at_ms=quote.expires_at_ms,
        )


def _altered(field: str, description: str, **metadata: object) -> DomainError:
    violation = FieldViolation(field, description)
    return DomainError(Reason.QUOTE_ALTERED, f"{field} {description}", violations=(violation,), field=field, **metadata)


def _mac(text: bytes, key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a quote key has {KEY_BYTES} bytes, not {len(key)}")
    return hmac.digest(key, _VERSION + text, hashlib.sha256)


def _table_of(quote: Quote) -> dict[str, object]:
    receipt, basis = quote.receipt, quote.receipt.surge
    return {
        "id": quote.quote_id,
        "city": quote.city_id,
        "rider": quote.rider_id,
        "product": quote.product,
        "stops": [[stop.lat_e7, stop.lng_e7] for stop in quote.stops],
        "fare": quote.fare_minor,
        "currency": quote.currency_code,
        "lines": [[line.kind.name, line.amount_minor] for line in receipt.lines],
        "multiplier": receipt.multiplier_milli,
        "time_of_day": receipt.time_of_day_milli,
        "surge": [basis.cell, basis.surge_version, basis.as_of_ms, basis.stale, basis.supply, basis.demand_milli],
        "travel_times": receipt.travel_times_version,
        **({"fell_back": True} if receipt.travel_times_fell_back else {}),
        "distance": quote.distance_m,
        "duration": quote.duration_s,
        "issued": quote.issued_at_ms,
        "expires": quote.expires_at_ms,
    }


def _quote_of(table: dict[str, Any]) -> Quote:
    receipt = Receipt(
        lines=tuple(FareLine(FareLineKind[kind], amount) for kind, amount in table["lines"]),
        multiplier_milli=table["multiplier"],
        time_of_day_milli=table["time_of_day"],
        surge=SurgeBasis(*table["surge"]),
        travel_times_version=table["travel_times"],
        travel_times_fell_back=bool(table.get("fell_back", False)),
    )
    return Quote(
        quote_id=QuoteId(table["id"]),
        city_id=CityId(table["city"]),
        rider_id=RiderId(table["rider"]),
        product=table["product"],
        stops=tuple(StopE7(lat, lng) for lat, lng in table["stops"]),
        fare_minor=table["fare"],
        currency_code=table["currency"],
        receipt=receipt,
        distance_m=table["distance"],
        duration_s=table["duration"],
        issued_at_ms=table["issued"],
        expires_at_ms=table["expires"],
    )
