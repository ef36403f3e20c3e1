"""What went wrong with a store, in one line a reader can act on."""

from __future__ import annotations

import re
from typing import Final

REDIS_URL_VARIABLE: Final = "HEXHAIL_REDIS_URL"
POSTGRES_DSN_VARIABLE: Final = "HEXHAIL_POSTGRES_DSN"


class StoreError(Exception):
    """A store cannot be started, reached or used. The message is one line: what was found, and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def shown(address: str) -> str:
    """How is a URL or DSN shown to a reader? Without its user and password."""
    return re.sub(r"password=[^&\s]*", "password=...", re.sub(r"://.*@", "://", address))
