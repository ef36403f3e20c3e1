"""What is known of drivers, as the columns that decisions take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel.geo import bearings_deg
from matching.candidates import DriverFacts
from matching.ranking import Candidates
from matching.records import acceptance_milli, idle_s

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Floats
    from matching.store import Driver


def candidates_of(
    ids: tuple[str, ...],
    known: Sequence[Driver | None],
    places: Floats,
    heading_deg: Floats,
    distance_m: Floats,
    pickup_eta_s: Floats,
    pickup: Place,
    now_ms: int,
) -> Candidates:
    """Drivers considered for one ride, from what location, routing and PostgreSQL say of them, all in the order of `ids`."""
    return Candidates(
        driver_ids=ids,
        distance_m=distance_m,
        pickup_eta_s=pickup_eta_s,
        rating_milli=np.array([r.rating_milli if r else 0 for r in known], np.int64),
        acceptance_milli=acceptance_milli(
            np.array([r.record.shown_milli if r else 0 for r in known], np.int64),
            np.array([r.record.accepted_milli if r else 0 for r in known], np.int64),
        ),
        heading_deg=heading_deg,
        bearing_deg=bearings_deg(places[:, 0], places[:, 1], pickup.lat, pickup.lng),
        idle_s=idle_of(known, now_ms),
        capabilities=tuple(frozenset(r.capabilities) if r else frozenset() for r in known),
    )


def idle_of(known: Sequence[Driver | None], now_ms: int) -> Floats:
    """How long have these drivers been free? float64[n], seconds; 0 for whoever is not."""
    return idle_s(
        np.array([r.free_since_ms if r else 0 for r in known], np.int64),
        np.array([r is not None and r.free for r in known], np.bool_),
        now_ms,
    )


def facts_of(ids: Sequence[str], known: Sequence[Driver | None], with_session: Collection[str]) -> DriverFacts:
    """What PostgreSQL and the sessions say of these drivers, in the order of `ids`."""

    def column(values: list[bool]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array(values, np.bool_)

    return DriverFacts(
        known=column([r is not None for r in known]),
        online=column([r is not None and r.online for r in known]),
        suspended=column([r is not None and r.suspended for r in known]),
        busy=column([r is not None and bool(r.ride_id) for r in known]),
        has_live_offer=column([r is not None and r.has_live_offer for r in known]),
        has_session=column([i in with_session for i in ids]),
    )
