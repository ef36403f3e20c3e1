"""`hexhail explain`: why a ride went as it did, as one timeline for people, or as JSON."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hexhail.cities import CityError, load_city
from hexhail.cli.errors import ServiceError
from hexhail.client import Channels, OfferState, OperatorApp, RpcError
from hexhail.kernel.ids import check_minted
from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from zoneinfo import ZoneInfo

    from rich.console import RenderableType

    from hexhail.client import Addresses
    from hexhail.client.explanation_views import CandidateView, OfferCourseView, RideEventView, RideExplanation, SearchView
    from hexhail.kernel.settings import Settings

PIPED_WIDTH: Final = 160
"""Where no terminal says how wide it is."""


def add_explain(
    app: typer.Typer,
    settings_of: Callable[[Path | None], Settings],
    finish: Callable[[Coroutine[Any, Any, Any]], Any],
    addresses_of: Callable[[Settings], Addresses],
    token_of: Callable[[Settings], str],
) -> None:
    """Adds the command."""

    @app.command("explain")
    def explain_command(
        ride_id: Annotated[str, typer.Argument(help="The ride, such as gridport-01KACW4J5M0000000000000000.")],
        driver: Annotated[str, typer.Option("--driver", help="Also: why did each search not ask this driver?")] = "",
        as_json: Annotated[bool, typer.Option("--json", help="As JSON, to stdout.")] = False,
        matching: Annotated[str | None, typer.Option(help="Address of the matching service.")] = None,
        data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the services keep their keys.")] = None,
    ) -> None:
        """Why did a ride go to this driver and not to another? Asks a city that runs.

        Tells who was considered in each search, with score and reason; when offers were made, shown and answered; every state.
        """
        settings = settings_of(data_dir)
        known = addresses_of(settings)
        address = matching or known.matching
        told: RideExplanation = finish(
            explained(type(known)(known.location, address, known.pricing), ride_id, driver, lambda: token_of(settings))
        )
        if as_json:
            print(json.dumps(asdict(told), indent=2))
            return
        console = Console()
        if not console.is_terminal:
            console = Console(width=PIPED_WIDTH)
        console.print(timeline(told, time_zone_of(ride_id, settings)))


async def explained(addresses: Addresses, ride_id: str, driver_id: str, token_of: Callable[[], str]) -> RideExplanation:
    """What a running matching service says of a ride. Raises DomainError, RpcError, and ServiceError where nobody answers."""
    city_id = check_minted("ride_id", ride_id)
    async with Channels(addresses) as channels:
        try:
            return await OperatorApp(channels, city_id, "hexhail", token_of()).explain_ride(ride_id, driver_id)
        except RpcError as error:
            if error.code != "UNAVAILABLE":
                raise
            raise ServiceError(
                f"matching does not answer at {addresses.matching}: is the city running? --matching names another address"
            ) from None


def time_zone_of(ride_id: str, settings: Settings) -> ZoneInfo | dt.tzinfo:
    """The zone of the ride's city, or UTC where the city's file is not here."""
    try:
        return load_city(check_minted("ride_id", ride_id), settings).zone_info
    except CityError:
        return dt.UTC


def timeline(told: RideExplanation, zone: ZoneInfo | dt.tzinfo) -> Group:
    """An explanation for people."""
    return Group(*_Telling(told, zone).lines())


_OF_DRIVER: Final = {
    "OFFER_SHOWN": "sees the offer",
    "OFFER_DECLINED": "declines",
    "DRIVER_ARRIVED": "is at the pickup",
    "RIDE_STARTED": "sets out with the rider",
    "RIDE_COMPLETED": "is at the drop-off",
}
"""What a driver does, in a word or two."""


class _Telling:
    """One explanation, on its way to the screen."""

    def __init__(self, told: RideExplanation, zone: ZoneInfo | dt.tzinfo) -> None:
        self._told = told
        self._zone = zone
        self._search_of = {search.version: search for search in told.searches}
        self._offers = {offer.offer_id: offer for offer in told.offers}
        self._state = ""

    def lines(self) -> Iterator[RenderableType]:
        yield from self._head()
        for event in self._told.events:
            yield from self._event(event)
        yield from self._absences()

    def _head(self) -> Iterator[RenderableType]:
        ride, told = self._told.ride, self._told
        began = dt.datetime.fromtimestamp(ride.requested_at_ms / MS_PER_S, self._zone)
        yield Text.assemble((f"Ride {ride.ride_id}", "bold"), f"  {ride.product}, now ", (ride.state.value, "bold"))
        yield Text(
            f"  {began:%Y-%m-%d}, times of {self._zone}; fare {ride.fare_minor:,} {ride.currency_code} in minor units, "
            f"surge {ride.multiplier_milli / 1000:g}x (version {told.surge_version}), "
            f"quoted with travel times {told.quote_travel_times_version or 'unknown'}"
        )
        if not told.complete:
            yield Text("  The event log does not hold all of this ride any more: what follows has gaps.", "yellow")
        yield Text()

    def _event(self, event: RideEventView) -> Iterator[RenderableType]:
        search = self._search_of.get(event.version) if event.kind == "CANDIDATES_RANKED" else None
        if search is not None:
            yield self._line(event, _of_search(search))
            for remark in _remarks(search):
                yield Padding(Text(remark, "yellow"), (0, 0, 0, 4))
            if search.candidates:
                yield Padding(self._candidates(search), (0, 0, 0, 4))
        else:
            yield self._line(event, self._sentence(event))

    def _line(self, event: RideEventView, sentence: str) -> Text:
        state = event.state.value if event.state is not None else ""
        news, self._state = ("" if state == self._state else state), state
        since_s = (event.at_ms - self._told.ride.requested_at_ms) / MS_PER_S
        return Text.assemble(
            (self._time(event.at_ms), "cyan"), (f" {since_s:+9.3f} s  ", "dim"), sentence, (f"  {news}", "bold green")
        )

    def _time(self, at_ms: int) -> str:
        return f"{dt.datetime.fromtimestamp(at_ms / MS_PER_S, self._zone):%H:%M:%S.%f}"[:-3]

    def _sentence(self, event: RideEventView) -> str:
        details = event.details
        own = self._SENTENCES.get(event.kind)
        if own is not None:
            return own(self, event)
        driver = details.get("driver_id", "")
        if event.kind in _OF_DRIVER:
            return f"{driver} {_OF_DRIVER[event.kind]}"
        said = ", ".join(f"{name} {value}" for name, value in details.items() if event.actor != f"driver/{value}")
        by = "" if event.actor == "system" else f" by {event.actor}"
        return event.kind.replace("_", " ").lower() + by + (f": {said}" if said else "")

    def _began(self, event: RideEventView) -> str:
        others = [
            offer.driver_id
            for offer in self._told.offers
            if offer.state is OfferState.WITHDRAWN and offer.closed_at_ms == event.at_ms
        ]
        withdrawn = f"; withdrawn from {', '.join(others)}" if others else ""
        details = event.details
        return f"{details.get('driver_id', '')} accepts, pickup expected in {details.get('pickup_eta_s', '0')} s{withdrawn}"

    def _ended(self, event: RideEventView) -> str:
        details = event.details
        note = f": {details['note']}" if details.get("note") else ""
        return f"{details.get('driver_id', '')} is free of the ride, {details.get('reason', 'UNSPECIFIED')}{note}"

    def _of_offers(self, event: RideEventView) -> str:
        made = [offer for offer in self._told.offers if offer.made_at_ms == event.at_ms]
        until = f", until {self._time(made[0].expires_at_ms)}" if made else ""
        return f"phase {event.details.get('phase', '')}: offered to {event.details.get('driver_ids', '')}{until}"

    def _expired(self, event: RideEventView) -> str:
        ids = event.details.get("offer_ids", "").split(", ")
        offers = [self._offers[offer_id] for offer_id in ids if offer_id in self._offers]
        names = (offer.driver_id if offer.shown_at_ms else f"{offer.driver_id} (never shown)" for offer in offers)
        return f"not answered in time by {', '.join(names)}"

    _SENTENCES: ClassVar[dict[str, Callable[[_Telling, RideEventView], str]]] = {
        "RIDE_REQUESTED": lambda _, event: f"requested by {event.actor}",
        "FEE_DUE": lambda _, event: f"{event.details.get('rider_id', '')} owes a fee, {event.details.get('kind', '')}",
        "OFFERS_MADE": _of_offers,
        "OFFERS_EXPIRED": _expired,
        "ASSIGNMENT_BEGAN": _began,
        "ASSIGNMENT_ENDED": _ended,
    }

    def _candidates(self, search: SearchView) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        parts = list(dict.fromkeys(name for each in search.candidates for name in each.parts))
        parts = parts if len(parts) > 1 else []  # a single one is the score
        table.add_column("", justify="right")
        table.add_column("driver", no_wrap=True)
        for name in ("score", *parts):
            table.add_column(name.replace("_", " "), justify="right")
        for name in ("away m", "pickup s", "rating", "accepts", "free min"):
            table.add_column(name, justify="right", style="dim")
        table.add_column("outcome")
        for place, each in enumerate(search.candidates, 1):
            outcome, style = self._outcome(search, each)
            table.add_row("" if each.left_out else str(place), each.driver_id, *_figures(each, parts), Text(outcome, style))
        return table

    def _outcome(self, search: SearchView, candidate: CandidateView) -> tuple[str, str]:
        if candidate.not_offered_reason:
            return candidate.not_offered_reason.replace("_", " ").lower(), "dim"
        for offer in self._told.offers:
            if (offer.search, offer.driver_id) == (search.search, candidate.driver_id):
                return _answer(offer), "green" if offer.state is OfferState.ACCEPTED else ""
        return "asked", ""

    def _absences(self) -> Iterator[RenderableType]:
        for absence in self._told.absences:
            why = absence.reason.replace("_", " ").lower() if absence.reason else "asked"
            if absence.ride_id:
                why += f" with {absence.ride_id}"
            if absence.reason == "NOT_FOUND":
                why += ": out of the radius, farther away than enough others, or silent"
            yield Text(f"Why not {absence.driver_id} in search {absence.search}? {why}", "bold")


def _figures(candidate: CandidateView, parts: list[str]) -> list[str]:
    """A candidate's score, its parts, and what the policy saw."""
    away = f"{candidate.distance_m:,.0f}"
    if candidate.left_out:
        return ["", *("" for _ in parts), away, "", "", "", ""]
    return [
        _score(candidate.score_milli),
        *(_score(candidate.parts.get(name, 0)) for name in parts),
        away,
        "" if candidate.not_offered_reason == "UNREACHABLE" else f"{candidate.pickup_eta_s:,}",
        f"{candidate.rating_milli / 1000:.1f}",
        f"{candidate.acceptance_milli / 10:.0f} %",
        f"{candidate.idle_s / 60:.0f}",
    ]


def _of_search(search: SearchView) -> str:
    times, found = search.travel_times_version or "unknown", sum(not each.left_out for each in search.candidates)
    return (
        f"search {search.search}, phase {search.phase}: {found} drivers within {search.searched_radius_m:,.0f} m, "
        f"ranked by {search.policy}, travel times {times}"
    )


def _remarks(search: SearchView) -> Iterator[str]:
    if not search.complete:
        yield "location did not know everything then: more drivers may have been there"
    if search.policy_failure:
        yield f"policy {search.failed_policy} failed ({search.policy_failure}), so its fallback {search.policy} ranked"
    if search.travel_times_fell_back:
        yield "the city's own router did not answer, so another one did"


def _answer(offer: OfferCourseView) -> str:
    if offer.state is OfferState.LIVE:
        return "asked, shown" if offer.shown_at_ms else "asked"
    after = f" after {(offer.closed_at_ms - offer.made_at_ms) / MS_PER_S:.1f} s" if offer.closed_at_ms else ""
    unseen = "" if offer.shown_at_ms else ", never shown"
    return f"{offer.state.value.lower()}{after}{unseen}"


def _score(milli: int) -> str:
    return f"{milli / 1000:,.3f}".rstrip("0").rstrip(".")
