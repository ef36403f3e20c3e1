"""A script that a Valkey server runs in one step, and the name under which the server knows it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.stores.line import Call


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest that EVALSHA wants."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """The script of this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def call(self, keys: Sequence[str | bytes], *arguments: str | bytes | float) -> Call:
        """What asks for it to be run on these keys, for `Valkey.ask`."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)
