"""Who is near each of many places? Exactly what a search at each of them would say, of all drivers at once. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import cKDTree

from hexhail.kernel import geo
from location.nearby import are_eligible, not_excluded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hexhail.kernel.units import Floats, Ints
    from location.known import DriverIds, Snapshot
    from location.model import Records

SLACK: Final = 4
"""So many more of the nearest are looked at than are wanted: then it is nearly always certain that nobody is missing."""

PAIRS_AT_ONCE: Final = 200_000
"""Places times drivers that are measured in one go, so that memory stays bounded."""

MARGIN_M: Final = 0.01
"""More than rounding moves a distance through the Earth, or one rounded to millimetres."""

_NOBODY: Final = np.iinfo(np.int64).max
_RANK_BITS: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class BatchQuestion:
    """Who is near each of these places?

    lat, lng : float64[m], degrees
    """

    lat: Floats
    lng: Floats
    max_drivers: int
    radius_m: float
    capability_mask: int
    min_rating_milli: int
    excluded_driver_ids: frozenset[str]
    max_age_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class BatchAnswer:
    """The nearest drivers of each place, nearest first, ties by id.

    driver_ids, records : object[n], RECORD[n], each driver once
    start : int64[m + 1], the candidates of place i are rows start[i] to start[i + 1] of the two columns below
    driver_index, distance_mm : int64[c]
    searched_radius_m : float64[m], nobody nearer than this was left out
    """

    driver_ids: DriverIds
    records: Records
    start: Ints
    driver_index: Ints
    distance_mm: Ints
    searched_radius_m: Floats
    complete: bool
    as_of_ms: int


def nearest(snapshot: Snapshot, question: BatchQuestion, now_ms: int) -> BatchAnswer:
    """Who is near each place?

    A k-d tree of the drivers' places on the sphere gives a few more of the nearest than are wanted; their great-circle distances,
    rounded as those of a single search, then decide. Where ties reach as far as the tree was asked, it is asked again, for all
    who are no farther. Source: our choice; the tree is scipy's.
    """
    field = _Field(snapshot, question, now_ms)
    found = [field.search(slice(first, first + step)) for first, step in _portions(question)]
    mm = np.concatenate([each.distance_mm for each in found]) if found else np.zeros(0, np.int64)
    which = np.concatenate([each.which for each in found]) if found else np.zeros(0, np.int64)
    counts = [each.counts for each in found]
    used, index = np.unique(which, return_inverse=True)
    rows = field.rows[used]
    return BatchAnswer(
        driver_ids=snapshot.driver_ids[rows],
        records=snapshot.records[rows],
        start=np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts])),
        driver_index=index,
        distance_mm=mm,
        searched_radius_m=np.concatenate([np.zeros(0), *(each.searched_radius_m for each in found)]),
        complete=snapshot.complete,
        as_of_ms=now_ms,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The candidates of some places, one place after the other.

    which, distance_mm : int64[c]
    counts : int64[p], of each place
    searched_radius_m : float64[p]
    """

    which: Ints
    distance_mm: Ints
    counts: Ints
    searched_radius_m: Floats


class _Field:
    """The drivers that a question is about, in the order of their ids: of those in one spot, as many as can be wanted."""

    def __init__(self, snapshot: Snapshot, question: BatchQuestion, now_ms: int) -> None:
        self._question = question
        self._wanted = question.max_drivers + 1  # one more tells whether somebody is left within the radius
        self._radius_mm = round(question.radius_m * 1000)
        eligible = np.flatnonzero(are_eligible(snapshot.records, question, now_ms)).tolist()
        rows = np.array(not_excluded(eligible, snapshot.driver_ids.tolist(), question), dtype=np.int64)
        if len(rows):
            rows = rows[np.argsort(snapshot.driver_ids[rows].astype("S"))]
            rows = rows[_place_in_spot(snapshot.records["position"][rows]) < self._wanted]
        self.rows = rows
        self._lat, self._lng = snapshot.lat[rows], snapshot.lng[rows]
        self._tree = cKDTree(geo.vectors_m(self._lat, self._lng)) if len(rows) else None

    def search(self, places: slice) -> _Found:
        """The nearest drivers of some of the places."""
        question, tree = self._question, self._tree
        lat, lng = question.lat[places], question.lng[places]
        if tree is None:
            nobody = np.zeros(0, np.int64)
            return _Found(nobody, nobody, np.zeros(len(lat), np.int64), np.full(len(lat), question.radius_m))
        vectors = geo.vectors_m(lat, lng)
        reach_m = geo.chord_m(question.radius_m) + MARGIN_M
        answer = tree.query(vectors, k=self._wanted + SLACK, distance_upper_bound=reach_m)
        chords_m, which = np.asarray(answer[0], dtype=np.float64), np.asarray(answer[1], dtype=np.int64)
        keys = self._keys(lat[:, None], lng[:, None], which)
        unread_mm = 1000 * (geo.arcs_m(np.where(which[:, -1] < tree.n, chords_m[:, -1], np.inf)) - MARGIN_M)
        for place in np.flatnonzero(keys[:, self._wanted - 1] >> _RANK_BITS >= unread_mm).tolist():
            farthest_m = min(int(keys[place, self._wanted - 1]) >> _RANK_BITS, self._radius_mm) / 1000
            all_within = tree.query_ball_point(vectors[place], geo.chord_m(farthest_m) + MARGIN_M)
            exact = self._keys(lat[place : place + 1], lng[place : place + 1], np.array(all_within, dtype=np.int64))
            keys[place] = _NOBODY
            keys[place, : len(exact)] = exact[: keys.shape[1]]
        return self._found(keys[:, : self._wanted])

    def _keys(self, lat: Floats, lng: Floats, which: Ints) -> Ints:
        """Distance in mm, then rank by id, in one number, ascending along the last axis; _NOBODY beyond the radius."""
        inside = which < len(self.rows)
        which = np.where(inside, which, 0)
        metres = geo.distances_m(lat, lng, self._lat[which], self._lng[which])
        mm = np.rint(metres * 1000).astype(np.int64)
        keys = np.where(inside & (mm <= self._radius_mm), mm << _RANK_BITS | which, _NOBODY)
        keys.sort(axis=-1)
        return keys

    def _found(self, keys: Ints) -> _Found:
        """The candidates that the keys name, int64[p, wanted]."""
        are_more = keys[:, -1] != _NOBODY
        shown = keys[:, :-1]
        kept = shown != _NOBODY
        chosen = shown[kept]
        searched_m = np.where(are_more, (shown[:, -1] >> _RANK_BITS) / 1000, self._question.radius_m)
        return _Found(chosen & ((1 << _RANK_BITS) - 1), chosen >> _RANK_BITS, kept.sum(axis=1), searched_m)


def _portions(question: BatchQuestion) -> Iterator[tuple[int, int]]:
    """The places in pieces: the first of each, and how many."""
    step = max(1, PAIRS_AT_ONCE // (question.max_drivers + 1 + SLACK))
    return ((first, step) for first in range(0, len(question.lat), step))


def _place_in_spot(positions: Records) -> Ints:
    """How many before it are in the very same spot? POSITION[n] -> int64[n]."""
    spots = (positions["lat_e7"].astype(np.int64) << 32) + positions["lng_e7"]
    order = np.argsort(spots, kind="stable")
    begins = np.append(True, np.diff(spots[order]) != 0)
    numbers = np.arange(len(spots))
    places = np.empty(len(spots), np.int64)
    places[order] = numbers - np.maximum.accumulate(np.where(begins, numbers, 0))
    return places
