"""A quote comes back as it was given, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import CityId, QuoteId, RiderId
from pricing.model import FareLine, FareLineKind, Quote, Receipt, StopE7, SurgeBasis
from pricing.quotes import check_quote, open_quote, sign_quote

KEY = bytes(range(32))
STOPS = (StopE7(405_000_000, -740_000_000), StopE7(405_100_000, -739_900_000))
QUOTE = Quote(
    quote_id=QuoteId("testport-01KACW4J000000000000000000"),
    city_id=CityId("testport"),
    rider_id=RiderId("rider-1"),
    product="economy",
    stops=STOPS,
    fare_minor=1200,
    currency_code="USD",
    receipt=Receipt(
        (FareLine(FareLineKind.BASE, 500), FareLine(FareLineKind.DISTANCE, 300), FareLine(FareLineKind.SURGE, 400)),
        1500,
        1000,
        SurgeBasis(613_229_523_021_856_767, 17, 1_772_643_590_000, False, 3, 4250),
        "test-1",
    ),
    distance_m=2000,
    duration_s=300,
    issued_at_ms=1_772_643_600_000,
    expires_at_ms=1_772_643_720_000,
)
TOKEN = sign_quote(QUOTE, KEY)


def reason_of(token: bytes, key: bytes = KEY) -> Reason:
    with pytest.raises(DomainError) as caught:
        open_quote(token, key)
    return caught.value.reason


def test_a_quote_comes_back_whole() -> None:
    assert open_quote(TOKEN, KEY) == QUOTE


def test_a_quote_by_another_router_than_the_citys_own_says_so_for_good() -> None:
    marked = replace(QUOTE, receipt=replace(QUOTE.receipt, travel_times_fell_back=True))
    assert open_quote(sign_quote(marked, KEY), KEY) == marked


def test_equal_quotes_have_equal_tokens() -> None:
    assert sign_quote(QUOTE, KEY) == TOKEN


def test_any_flipped_bit_is_found_out() -> None:
    for bit in range(len(TOKEN) * 8):
        flipped = bytearray(TOKEN)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason_of(bytes(flipped)) is Reason.QUOTE_ALTERED


@given(st.dictionaries(st.integers(0, len(TOKEN) - 1), st.integers(1, 255), min_size=1))
def test_any_changed_bytes_are_found_out(changes: dict[int, int]) -> None:
    changed = bytearray(TOKEN)
    for at, mask in changes.items():
        changed[at] ^= mask
    assert reason_of(bytes(changed)) is Reason.QUOTE_ALTERED


@given(st.binary(max_size=200))
def test_bytes_that_are_no_token_are_refused(token: bytes) -> None:
    assert reason_of(token) is Reason.QUOTE_ALTERED


@given(st.integers(0, len(TOKEN) - 1))
def test_a_token_cut_short_is_refused(length: int) -> None:
    assert reason_of(TOKEN[:length]) is Reason.QUOTE_ALTERED


def test_a_token_made_longer_is_refused() -> None:
    assert reason_of(TOKEN + b" ") is Reason.QUOTE_ALTERED


def test_another_key_signs_another_token() -> None:
    assert reason_of(TOKEN, bytes(32)) is Reason.QUOTE_ALTERED


def test_a_lower_fare_under_the_old_signature_is_refused() -> None:
    table = json.loads(TOKEN[33:])
    table["fare"] = 1
    text = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    assert reason_of(TOKEN[:33] + text) is Reason.QUOTE_ALTERED


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33])
def test_keys_of_another_length_are_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        sign_quote(QUOTE, key)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rider_id": "rider-2"}, Reason.NOT_YOURS),
        ({"city_id": "otherport"}, Reason.QUOTE_ALTERED),
        ({"product": "xl"}, Reason.QUOTE_ALTERED),
        ({"stops": STOPS[::-1]}, Reason.QUOTE_ALTERED),
        ({"stops": (STOPS[0], StopE7(405_100_001, -739_900_000))}, Reason.QUOTE_ALTERED),
        ({"stops": (*STOPS, STOPS[0])}, Reason.QUOTE_ALTERED),
        ({"now_ms": QUOTE.expires_at_ms}, Reason.QUOTE_EXPIRED),
        ({"now_ms": QUOTE.expires_at_ms + 1}, Reason.QUOTE_EXPIRED),
    ],
)
def test_a_quote_holds_for_its_rider_and_ride_until_it_expires(changed: dict[str, object], reason: Reason) -> None:
    asked: dict[str, object] = {
        "city_id": "testport",
        "rider_id": "rider-1",
        "product": "economy",
        "stops": STOPS,
        "now_ms": QUOTE.expires_at_ms - 1,
    }
    check_quote(QUOTE, **asked)  # type: ignore[arg-type]
    with pytest.raises(DomainError) as caught:
        check_quote(QUOTE, **(asked | changed))  # type: ignore[arg-type]
    assert caught.value.reason is reason
