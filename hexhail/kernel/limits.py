"""How much may one request hold? The limits that several services check, as the wire's comments state them."""

from __future__ import annotations

from typing import Final

MIN_STOPS: Final = 2
MAX_STOPS: Final = 10
MAX_QUOTE_TOKEN_BYTES: Final = 8192
MAX_RATING_MILLI: Final = 5000
MAX_CAPABILITIES: Final = 32
"""A driver's capabilities are the bits of one 32-bit column."""
