"""How does this driver answer this ride, and when? From a hash: every dispatcher meets the same people. Pure."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from hexhail.kernel.units import MS_PER_S, Ints

_SPAN: Final = 2.0**32
_DRIVER, _RIDE = -1, -2
"""Stand where a question is not about a pair."""


@dataclass(frozen=True, slots=True)
class PeopleParams:
    """How people behave; as those of the live simulator (`simulator.params.LiveParams`). Raises ValueError naming the field.

    decline_share : of the offers that a driver answers; none is left unanswered
    think_s : how long a driver looks at an offer, from to, evenly
    boarding_s : from arriving to starting, from to, evenly
    rating_milli : of drivers, from to, evenly
    """

    decline_share: float = 0.10
    think_s: tuple[float, float] = (0.5, 3.0)
    boarding_s: tuple[float, float] = (2.0, 5.0)
    rating_milli: tuple[float, float] = (4200.0, 5000.0)

    def __post_init__(self) -> None:
        if not 0 <= self.decline_share <= 1:
            raise ValueError(f"decline_share is {self.decline_share}, not 0 to 1")
        for name in ("think_s", "boarding_s", "rating_milli"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < math.inf:
                raise ValueError(f"{name} is {low} to {high}, not a range")


@dataclass(frozen=True, slots=True)
class People:
    """The drivers and riders of one seed. What one does hangs on nothing but the seed and who is meant: not on the order of
    events, and not on who dispatches.
    """

    seed: int
    params: PeopleParams = PeopleParams()

    def answer(self, ride: int, driver: int) -> tuple[bool, int]:
        """Does the driver accept this ride, and after how many milliseconds does it say so?"""
        willing, slow = self._chances(ride, driver)
        return willing >= self.params.decline_share, self._between_ms(self.params.think_s, slow)

    def boarding_ms(self, ride: int) -> int:
        """How long is it from the driver's arrival to the start?"""
        return self._between_ms(self.params.boarding_s, self._chances(ride, _RIDE)[0])

    def ratings_milli(self, drivers: int) -> Ints:
        """int64[drivers]."""
        low, high = self.params.rating_milli
        rated = [low + (high - low) * self._chances(driver, _DRIVER)[0] for driver in range(drivers)]
        return np.array([round(each) for each in rated], dtype=np.int64)

    def _chances(self, one: int, other: int) -> tuple[float, float]:
        """Two numbers of [0, 1)."""
        digest = hashlib.blake2b(struct.pack("<qqq", self.seed, one, other), digest_size=8).digest()
        first, second = struct.unpack("<II", digest)
        return first / _SPAN, second / _SPAN

    @staticmethod
    def _between_ms(span_s: tuple[float, float], share: float) -> int:
        low, high = span_s
        return round(MS_PER_S * (low + (high - low) * share))
