"""What a process remembers of rides: the newest version of those that go on, and no more of them than it may."""

from __future__ import annotations

from dataclasses import replace

from hexhail.kernel.ids import OfferId, RideId
from matching.model import OfferAccepted, RideState
from matching.offers import OfferParams, decide
from matching.remembered import Remembered
from tests.matching.rides import NOW_MS, offered, searching


def test_the_newest_version_is_remembered_whatever_order_they_come_in() -> None:
    remembered, older = Remembered(), offered("d1", "d2")
    newer = decide(older, OfferAccepted("o-d1"), NOW_MS, OfferParams()).ride
    remembered.put(newer)
    remembered.put(older)
    assert remembered.ride(older.ride_id) is newer
    assert remembered.ride_of_offer("o-d2") is newer


def test_a_ride_that_has_ended_or_was_changed_elsewhere_is_forgotten_with_its_offers() -> None:
    for end in ("final", "forget"):
        remembered, ride = Remembered(), offered("d1")
        remembered.put(ride)
        if end == "final":
            remembered.put(replace(ride, state=RideState.CANCELLED_BY_RIDER, version=ride.version + 1))
        else:
            remembered.forget(ride.ride_id)
        assert remembered.ride(ride.ride_id) is None
        assert remembered.ride_of_offer("o-d1") is None
        assert len(remembered) == 0


def test_of_too_many_the_first_is_forgotten() -> None:
    remembered = Remembered(most=2)
    rides = [replace(searching(), ride_id=RideId(f"gridport-{number}")) for number in range(3)]
    for ride in rides:
        remembered.put(ride)
    assert [remembered.ride(ride.ride_id) for ride in rides] == [None, *rides[1:]]


def test_an_offer_is_found_by_its_id() -> None:
    remembered = Remembered()
    ride = offered("d1", "d2")
    assert remembered.ride_of_offer("o-d1") is None
    remembered.put(ride)
    assert remembered.ride_of_offer(OfferId("o-d1")) is ride
