"""Why a ride went to this driver and not to another, as operators are told it."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.client import OfferState, RideState
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import mint
from matching.policies import GROUP
from matching.ranking import PolicyFailure
from tests.e2e.people import MIDDLE, Passenger, Phone, phones
from tests.e2e.test_phases import pass_time, row
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.embedded import Stores
    from matching.ranking import Candidates, RankingParams
    from matching.store import Driver
    from tests.e2e.world import World

TWO_AT_A_TIME = {
    "ranking": {"policy": "eta"},
    "offers": {"phases": [{"size": 2, "timeout_s": 5.0, "radius_m": 2_000.0}]},
}


def hide_from_location(world: World, driver_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on location is not told about this driver, as while a message is on its way."""
    tell = world.matching.teller.tell

    async def tell_of_others(drivers: Sequence[Driver]) -> None:
        await tell([driver for driver in drivers if driver.driver_id != driver_id])

    async def tell_nobody(*_: object) -> None:
        """The reconciler tells everyone who changed; here it would tell of that driver too."""

    monkeypatch.setattr(world.matching.teller, "tell", tell_of_others)
    monkeypatch.setattr(world.matching.teller, "tell_changed", tell_nobody)


async def test_everybody_considered_is_explained_by_what_was_so(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a busy driver next door, one who declines, one who lets the offer expire, one outranked who then accepts."""
    async with (
        world_of(stores, gridport(matching=TWO_AT_A_TIME)) as world,
        phones(world, [Place(MIDDLE.lat + 0.0004, MIDDLE.lng)], names=["busy"]) as (busy,),
    ):
        other = Passenger(world, world.rider("r0"))
        await other.request()
        hide_from_location(world, "busy", monkeypatch)
        await busy.app.accept((await busy.next_offer()).offer_id)
        async with phones(world, row(4), names=["declines", "sleeps", "outranked", "off"]) as (declines, sleeps, third, off):
            await off.app.go_offline()
            await world.operator().upsert_driver("cannot", ["xl"], 4_500)
            cannot = Phone(world, world.driver("cannot"), Place(MIDDLE.lat + 0.0005, MIDDLE.lng))
            await cannot.app.go_online()
            await cannot.report()
            rider = Passenger(world, world.rider())
            ride = await rider.request()
            await declines.app.decline((await declines.next_offer()).offer_id)
            await sleeps.app.ack((await sleeps.next_offer()).offer_id)
            await pass_time(world, 5)
            await third.app.accept((await third.next_offer()).offer_id)
            told = await rider.until_state(RideState.ACCEPTED)
            explained = await world.operator().explain_ride(ride.ride_id, "off")

    first, second = explained.searches
    assert {each.driver_id: each.not_offered_reason for each in first.candidates} == {
        "busy": "BUSY",
        "declines": "",
        "sleeps": "",
        "outranked": "OUTRANKED",
        "cannot": "WRONG_CLASS",
    }
    assert {each.driver_id: each.not_offered_reason for each in second.candidates} == {
        "busy": "BUSY",
        "declines": "DECLINED_BEFORE",
        "sleeps": "OFFERED_BEFORE",
        "outranked": "",
        "cannot": "WRONG_CLASS",
    }
    assert [each.driver_id for each in first.candidates] == ["busy", "declines", "sleeps", "outranked", "cannot"]
    for search in explained.searches:
        assert (search.policy, search.policy_failure, search.complete) == ("eta", "", True)
        assert search.travel_times_version == world.router.version
        for each in (each for each in search.candidates if not each.left_out):
            assert each.parts == {"pickup_eta": each.score_milli}
            assert each.score_milli == pytest.approx(-1000 * each.pickup_eta_s, abs=501)
    courses = {offer.driver_id: offer for offer in explained.offers}
    assert {driver_id: offer.state for driver_id, offer in courses.items()} == {
        "declines": OfferState.DECLINED,
        "sleeps": OfferState.EXPIRED,
        "outranked": OfferState.ACCEPTED,
    }
    assert {driver_id: offer.search for driver_id, offer in courses.items()} == {"declines": 1, "sleeps": 1, "outranked": 2}
    assert courses["sleeps"].shown_at_ms
    assert courses["sleeps"].closed_at_ms - courses["sleeps"].made_at_ms >= 5_000
    assert courses["declines"].closed_at_ms < courses["sleeps"].closed_at_ms
    assert [absence.reason for absence in explained.absences] == ["OFFLINE", "OFFLINE"]
    assert explained.complete
    assert explained.events[-1].state is told.state
    assert [event.kind for event in explained.events] == [
        "RIDE_REQUESTED",
        "CANDIDATES_RANKED",
        "OFFERS_MADE",
        "OFFER_DECLINED",
        "OFFER_SHOWN",
        "OFFERS_EXPIRED",
        "CANDIDATES_RANKED",
        "OFFERS_MADE",
        "ASSIGNMENT_BEGAN",
    ]
    assert asdict(explained)["ride"]["ride_id"] == ride.ride_id


async def test_what_is_not_there_is_named(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world:
        operator, unknown = world.operator(), mint(world.city.city_id, world.clock.now_ms())
        ride = await Passenger(world, world.rider()).request()
        for ride_id, driver_id, reason in (
            (unknown, "", Reason.RIDE_NOT_FOUND),
            ("gridport-r1", "", Reason.INVALID_FIELD),
            (ride.ride_id, "nobody", Reason.DRIVER_NOT_FOUND),
            (ride.ride_id, "no body", Reason.INVALID_FIELD),
        ):
            with pytest.raises(DomainError) as refused:
                await operator.explain_ride(ride_id, driver_id)
            assert refused.value.reason is reason


def broken(candidates: Candidates, params: RankingParams) -> dict[str, Any]:
    """A policy whose scores are no numbers."""
    return {"distance": np.full(len(candidates), np.nan)}


async def test_a_policy_that_fails_serves_the_ride_by_its_fallback_and_is_named_with_it(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [EntryPoint("broken", f"{__name__}:broken", GROUP)]
    monkeypatch.setattr("matching.policies.entry_points", lambda **_group: found)
    city = gridport(matching={"ranking": {"policy": "broken", "fallback_policy": "classic", "policy_limit_ms": 60_000.0}})
    async with world_of(stores, city) as world, phones(world, row(1)) as (phone,):
        ride = await Passenger(world, world.rider()).request()
        await phone.next_offer()
        (search,) = (await world.operator().explain_ride(ride.ride_id)).searches
        assert (search.policy, search.failed_policy, search.policy_failure) == ("classic", "broken", "NOT_FINITE")
        assert set(search.candidates[0].parts) == {"base", "distance", "rating", "acceptance", "toward_pickup"}
        assert world.matching.metrics["gridport"].policy_failures == {PolicyFailure.NOT_FINITE: 1}


def farthest(candidates: Candidates, params: RankingParams) -> dict[str, Any]:
    """A policy that nobody wants, and that is told from all others."""
    return {"distance": np.rint(candidates.distance_m * 1000).astype(np.int64)}


@pytest.mark.parametrize("policy", ["farthest", "broken"])
async def test_windows_are_explained_too_and_go_by_the_citys_own_policy_while_it_works(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    found = [EntryPoint(policy, f"{__name__}:{policy}", GROUP)]
    monkeypatch.setattr("matching.policies.entry_points", lambda **_group: found)
    batch = {"policy_limit_ms": 60_000.0}
    city = gridport(matching={"dispatch": "batched", "ranking": {"policy": policy}, "batch": batch})
    async with world_of(stores, city) as world, phones(world, row(2), names=["near", "far"]):
        ride = await Passenger(world, world.rider()).request()
        await world.matching.batchers[city.city_id].window()
        (search,) = (await world.operator().explain_ride(ride.ride_id)).searches
        reasons = {each.driver_id: each.not_offered_reason for each in search.candidates}
        if policy == "farthest":
            assert reasons == {"far": "", "near": "OUTRANKED"}
            assert (search.policy, search.policy_failure) == ("farthest", "")
            assert all(each.parts == {"distance": each.score_milli} for each in search.candidates)
        else:
            assert reasons == {"near": "", "far": "OUTRANKED"}
            assert (search.policy, search.failed_policy, search.policy_failure) == ("batched", "broken", "NOT_FINITE")
