"""Explanations of rides: protobuf to views."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from hexhail.client import wire
from hexhail.client.explanation_views import (
    AbsenceView,
    CandidateView,
    OfferCourseView,
    RideEventView,
    RideExplanation,
    SearchView,
)

if TYPE_CHECKING:
    from hexhail.api.matching.v1 import matching_service_pb2 as pb


def explanation_view(answer: pb.ExplainRideResponse) -> RideExplanation:
    """An explanation as operators see it."""
    found: dict[int, list[CandidateView]] = defaultdict(list)
    for each in answer.candidates:
        found[each.search].append(_candidate(each))
    return RideExplanation(
        ride=wire.ride_view(answer.ride),
        searches=tuple(_search(each, found[each.search]) for each in answer.searches),
        offers=tuple(_course(each) for each in answer.offer_courses),
        events=tuple(_event(each) for each in answer.events),
        absences=tuple(AbsenceView(each.search, each.driver_id, each.reason, each.ride_id) for each in answer.absences),
        complete=answer.complete,
        as_of_ms=answer.as_of_ms,
        quote_travel_times_version=answer.quote_travel_times_version,
        surge_version=answer.surge_version,
    )


def _candidate(candidate: pb.ExplainedCandidate) -> CandidateView:
    return CandidateView(
        driver_id=candidate.driver_id,
        score_milli=candidate.score_milli,
        parts={part.name: part.score_milli for part in candidate.parts},
        not_offered_reason=candidate.not_offered_reason,
        distance_m=candidate.distance_m,
        pickup_eta_s=candidate.pickup_eta_s,
        rating_milli=candidate.rating_milli,
        acceptance_milli=candidate.acceptance_milli,
        idle_s=candidate.idle_s,
        left_out=candidate.left_out,
    )


def _search(search: pb.ExplainedSearch, candidates: list[CandidateView]) -> SearchView:
    return SearchView(
        search=search.search,
        phase=search.phase,
        version=search.version,
        at_ms=search.at_ms,
        policy=search.policy,
        failed_policy=search.failed_policy,
        policy_failure=search.policy_failure,
        travel_times_version=search.travel_times_version,
        travel_times_fell_back=search.travel_times_fell_back,
        searched_radius_m=search.searched_radius_m,
        complete=search.complete,
        as_of_ms=search.as_of_ms,
        candidates=tuple(candidates),
    )


def _course(course: pb.ExplainedOffer) -> OfferCourseView:
    return OfferCourseView(
        offer_id=course.offer_id,
        driver_id=course.driver_id,
        search=course.search,
        phase=course.phase,
        state=wire.offer_state(course.state),
        made_at_ms=course.made_at_ms,
        expires_at_ms=course.expires_at_ms,
        shown_at_ms=course.shown_at_ms,
        closed_at_ms=course.closed_at_ms,
        pickup_eta_s=course.pickup_eta_s,
        pickup_distance_m=course.pickup_distance_m,
    )


def _event(event: pb.ExplainedEvent) -> RideEventView:
    return RideEventView(
        version=event.version,
        index=event.index,
        at_ms=event.at_ms,
        kind=event.kind,
        actor=event.actor,
        state=wire.ride_state(event.state) if event.state else None,
        details={detail.name: detail.value for detail in event.details},
    )
