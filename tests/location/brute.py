"""What the index should answer, by the plainest means: a list of drivers and a loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hexhail.kernel import geo
from hexhail.kernel.geo import Place
from hexhail.kernel.units import E7
from location.model import Availability, DriverState, NearbyQuestion


@dataclass(frozen=True, slots=True)
class Heard:
    """A driver's last fix."""

    session: int
    sequence: int
    at_ms: int
    place: Place


@dataclass(slots=True)
class Model:
    """All drivers of a city."""

    heard: dict[str, Heard] = field(default_factory=dict)
    told: dict[str, DriverState] = field(default_factory=dict)

    def fix(self, driver_id: str, heard: Heard) -> bool:
        """Was it newer, or the very write that came before (whose reply may have been lost)?"""
        heard = replace(heard, place=Place(round(heard.place.lat * E7) / E7, round(heard.place.lng * E7) / E7))
        last = self.heard.get(driver_id)
        if last == heard:
            return True
        if last is not None and (last.session, last.sequence) >= (heard.session, heard.sequence):
            return False
        self.heard[driver_id] = heard
        return True

    def tell(self, state: DriverState) -> bool:
        """Was it newer?"""
        known = self.told.get(state.driver_id)
        if known is not None and known.driver_version >= state.driver_version:
            return False
        self.told[state.driver_id] = state
        return True

    def available(self, now_ms: int, max_age_ms: int) -> list[str]:
        """Fresh available drivers."""
        return [
            driver_id
            for driver_id, heard in self.heard.items()
            if now_ms - heard.at_ms < max_age_ms
            and driver_id in self.told
            and self.told[driver_id].availability is Availability.AVAILABLE
        ]

    def nearby(self, question: NearbyQuestion, now_ms: int) -> list[tuple[int, str]]:
        """All that fit, nearest first: (distance in mm, id)."""
        found = []
        for driver_id in self.available(now_ms, question.max_age_ms):
            told = self.told[driver_id]
            mm = round(geo.distance_m(question.place, self.heard[driver_id].place) * 1000)
            able = told.capability_mask & question.capability_mask == question.capability_mask
            behind = question.after is None or (mm, driver_id) > (question.after.distance_mm, question.after.driver_id)
            if (
                able
                and behind
                and told.rating_milli >= question.min_rating_milli
                and driver_id not in question.excluded_driver_ids
                and mm <= round(question.radius_m * 1000)
            ):
                found.append((mm, driver_id))
        return sorted(found)
