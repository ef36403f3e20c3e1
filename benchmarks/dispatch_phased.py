"""Phased offers in a replay: whom does `matching.searcher` ask, without its stores? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.kernel.ids import DriverId, OfferId
from matching.candidates import consider
from matching.model import OffersPlanned, PlannedOffer
from matching.offers import next_phase

if TYPE_CHECKING:
    from benchmarks.dispatch_replay import Replay
    from matching.candidates import Consideration
    from matching.params import MatchingParams


class Phased:
    """Each ride for itself: the best of the nearest few at once, by the city's ranking; then the next, and from farther away."""

    def __init__(self, params: MatchingParams) -> None:
        self._params = params

    def search(self, replay: Replay, ride: int, now_ms: int) -> None:
        """Makes the offers of the ride's next phase."""
        phase = next_phase(replay.rides[ride])
        consideration = self._consider(replay, ride, phase, now_ms)
        if consideration is None:
            replay.offer(ride, OffersPlanned(phase, ()), now_ms)
            return
        rows = consideration.eligible()[: self._params.offers.phase(phase).size]
        candidates = consideration.candidates
        planned = tuple(
            PlannedOffer(
                offer_id_of(ride, phase, candidates.driver_ids[row]),
                DriverId(candidates.driver_ids[row]),
                round(float(candidates.pickup_eta_s[row])),
                round(float(candidates.distance_m[row])),
            )
            for row in rows
        )
        replay.offer(ride, OffersPlanned(phase, planned), now_ms)

    def _consider(self, replay: Replay, ride: int, phase: int, now_ms: int) -> Consideration | None:
        """Page by page of the nearest, until enough of them can be asked; None where nobody is there who is not asked already."""
        wanted, search = self._params.offers.phase(phase), self._params.search
        junction = int(replay.demand.pickups[ride])
        page = max(search.candidates, 3 * wanted.size)
        for pages in range(1, search.max_pages + 1):
            rows, more = replay.fleet.near(junction, pages * page, wanted.radius_m)
            if not more and replay.fleet.asked[rows].all():
                return None
            consideration = consider(
                replay.rides[ride],
                phase,
                replay.fleet.candidates(rows, junction, now_ms),
                replay.fleet.facts(rows),
                self._params.ranking,
                searched_radius_m=wanted.radius_m,
                complete=True,
                as_of_ms=now_ms,
            )
            if not more or len(consideration.eligible()) >= wanted.size:
                break
        return consideration


def offer_id_of(ride: int, phase: int, driver_id: str) -> OfferId:
    """An offer's id in a replay: the same in every run."""
    return OfferId(f"{ride}.{phase}.{driver_id}")
