"""The whole loop, end to end: over sockets, with real tokens, on real stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.client import OfferState, RideState
from tests.e2e.people import DROPOFF, MIDDLE, NEAR, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from hexhail.embedded import Stores


async def test_a_ride_from_quote_to_completion(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Given a driver near by, a rider is quoted, served, tracked and brought home, and the driver is free again."""
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        quote = await rider.quote()
        ride = await rider.request(quote)
        assert ride.state is RideState.SEARCHING

        offer = await phone.next_offer()
        assert offer.ride_id == ride.ride_id
        assert offer.fare_minor == quote.fare_minor
        assert 0 < offer.remaining_ms <= 5_000
        await phone.app.ack(offer.offer_id)
        accepted = await phone.app.accept(offer.offer_id)
        assert accepted.state is RideState.ACCEPTED
        told = await rider.until_state(RideState.ACCEPTED)
        assert told.assignment is not None
        assert told.assignment.driver_id == phone.app.driver_id
        assert told.assignment.travel_times_version == quote.travel_times_version == world.router.version
        assert (await world.operator().get_driver("d1")).ride_id == ride.ride_id

        await world.matching.tracker.look()
        await until(lambda: rider.tracks, "no tracking before the pickup")
        assert rider.tracks[0].eta_s is not None

        await phone.report(MIDDLE)
        await phone.app.arrive(ride.ride_id)
        await rider.until_state(RideState.ARRIVED)
        await phone.app.start(ride.ride_id)
        await rider.until_state(RideState.IN_PROGRESS)
        await phone.report(DROPOFF)
        await phone.app.complete(ride.ride_id)
        await rider.end_of_watch()

        assert rider.states()[-4:] == [
            RideState.ACCEPTED,
            RideState.ARRIVED,
            RideState.IN_PROGRESS,
            RideState.COMPLETED,
        ]
        await until(lambda: phone.offers[offer.offer_id].state is OfferState.ACCEPTED, "the phone's offer is not accepted")
        assert (await world.operator().get_driver("d1")).ride_id == ""
        assert world.channels.counts.rpc_errors == {}
