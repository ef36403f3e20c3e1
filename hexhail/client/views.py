"""What do apps see? The answers of the services as plain frozen values, without protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Cells, Floats, Ints


class _Named(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last: list[str]) -> str:
        return name


class RideState(_Named):
    """Where a ride stands, as `RideState` in ride.proto names it."""

    SCHEDULED = auto()
    SEARCHING = auto()
    OFFERED = auto()
    ACCEPTED = auto()
    ARRIVED = auto()
    IN_PROGRESS = auto()
    COMPLETED = auto()
    CANCELLED_BY_RIDER = auto()
    CANCELLED_BY_SYSTEM = auto()
    NO_SHOW = auto()
    EXPIRED = auto()
    ENDED_BY_OPERATOR = auto()

    @property
    def is_final(self) -> bool:
        """Will nothing change any more?"""
        return self in _FINAL

    @property
    def is_searching(self) -> bool:
        """Is no driver bound to the ride yet, or not any more?"""
        return self in _SEARCHING


_FINAL = frozenset(
    {
        RideState.COMPLETED,
        RideState.CANCELLED_BY_RIDER,
        RideState.CANCELLED_BY_SYSTEM,
        RideState.NO_SHOW,
        RideState.EXPIRED,
        RideState.ENDED_BY_OPERATOR,
    }
)
_SEARCHING = frozenset({RideState.SCHEDULED, RideState.SEARCHING, RideState.OFFERED})


class OfferState(_Named):
    """What became of an offer, as `OfferState` in offer.proto names it."""

    LIVE = auto()
    ACCEPTED = auto()
    DECLINED = auto()
    EXPIRED = auto()
    WITHDRAWN = auto()


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """The driver bound to a ride. A time that has not come is 0."""

    driver_id: str
    accepted_at_ms: int
    pickup_eta_s: int
    arrived_at_ms: int
    started_at_ms: int
    completed_at_ms: int
    travel_times_version: str = ""


@dataclass(frozen=True, slots=True)
class RideView:
    """A ride in one of its versions."""

    ride_id: str
    rider_id: str
    product: str
    stops: tuple[Place, ...]
    state: RideState
    version: int
    fare_minor: int
    currency_code: str
    multiplier_milli: int
    requested_at_ms: int
    updated_at_ms: int
    assignment: AssignmentView | None
    pickup_at_ms: int = 0
    """Of a scheduled ride, else 0."""


@dataclass(frozen=True, slots=True)
class TrackingView:
    """Where the ride's driver is; `eta_s` is None where unknown."""

    driver_id: str
    place: Place
    heading_deg: float | None
    eta_s: int | None
    age_ms: int


@dataclass(frozen=True, slots=True)
class QuoteView:
    """A price that RequestRide takes."""

    quote_id: str
    product: str
    fare_minor: int
    currency_code: str
    multiplier_milli: int
    distance_m: int
    duration_s: int
    expires_at_ms: int
    quote_token: bytes
    travel_times_version: str = ""


@dataclass(frozen=True, slots=True)
class OfferView:
    """A ride shown to this driver."""

    offer_id: str
    ride_id: str
    state: OfferState
    phase: int
    stops: tuple[Place, ...]
    pickup_eta_s: int
    pickup_distance_m: int
    fare_minor: int
    multiplier_milli: int
    remaining_ms: int
    trip_duration_s: int = 0
    trip_distance_m: int = 0
    direction_deg: float = 0.0
    """From pickup to drop-off, clockwise from north."""


@dataclass(frozen=True, slots=True)
class OffersView:
    """All live offers of a driver (a snapshot), or those that changed."""

    snapshot: bool
    offers: tuple[OfferView, ...]


@dataclass(frozen=True, slots=True)
class DriverView:
    """What matching knows of a driver; `ride_id` is empty where no ride is active."""

    driver_id: str
    version: int
    capabilities: tuple[str, ...]
    rating_milli: int
    online: bool
    suspended: bool
    ride_id: str
    acceptance_milli: int = 0
    """Share of the offers accepted that it saw to their end, of late."""
    free_since_ms: int = 0
    """0 for whoever is not free."""


@dataclass(frozen=True, slots=True)
class StatsView:
    """How a city stands: drivers, rides that are not over by state, and how long those that wait have waited."""

    as_of_ms: int
    drivers_online: int
    drivers_available: int
    rides: Mapping[RideState, int]
    waited_mean_s: int
    waited_max_s: int


@dataclass(frozen=True, slots=True)
class FixReport:
    """One position of one driver; None where the phone does not know."""

    sequence: int
    device_time_ms: int
    place: Place
    heading_deg: float | None = None
    speed_mps: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FleetFixes:
    """Positions of many drivers, as columns.

    new_driver_ids : drivers not in the stream's table yet: appended to it in this order
    driver_index : int64[n], rows of that table
    sequence : int64[n], counting up per driver
    device_time_ms : int64[n], Unix milliseconds
    lat, lng : float64[n], degrees
    heading_deg : float64[n], 0 to 360, nan where unknown
    speed_mps : float64[n]
    """

    new_driver_ids: tuple[str, ...]
    driver_index: Ints
    sequence: Ints
    device_time_ms: Ints
    lat: Floats
    lng: Floats
    heading_deg: Floats
    speed_mps: Floats


@dataclass(frozen=True, slots=True)
class SessionView:
    """A stream of fixes is open."""

    session_id: int
    report_interval_ms: int
    server_time_ms: int


@dataclass(frozen=True, slots=True)
class FixAckView:
    """What became of the fixes since the last acknowledgement: taken in, or dropped, by reason."""

    up_to_sequence: int
    accepted: int
    drops: Mapping[str, int]
    report_interval_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class SurgeView:
    """Multipliers per cell: of all cells above 1 (a snapshot), or of those that changed.

    cells : uint64[n]
    multiplier_milli : int64[n], thousandths
    """

    snapshot: bool
    version: int
    cells: Cells
    multiplier_milli: Ints
    as_of_ms: int
    stale: bool
