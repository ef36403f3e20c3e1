"""Apps for riders, drivers, fleets and operators: thin async clients, and the only way in for programs of ours."""

from hexhail.client.calling import RpcError, is_passing
from hexhail.client.channels import Addresses, Channels
from hexhail.client.counting import EXPECTED_REFUSALS, CallCounts
from hexhail.client.driver import DriverApp
from hexhail.client.fleet import FleetApp
from hexhail.client.operator import OperatorApp
from hexhail.client.ready import until_open
from hexhail.client.rider import RiderApp
from hexhail.client.views import (
    AssignmentView,
    DriverView,
    FixAckView,
    FixReport,
    FleetFixes,
    OfferState,
    OffersView,
    OfferView,
    QuoteView,
    RideState,
    RideView,
    SessionView,
    StatsView,
    SurgeView,
    TrackingView,
)
from hexhail.rpc.tokens import Role

__all__ = [
    "EXPECTED_REFUSALS",
    "Addresses",
    "AssignmentView",
    "CallCounts",
    "Channels",
    "DriverApp",
    "DriverView",
    "FixAckView",
    "FixReport",
    "FleetApp",
    "FleetFixes",
    "OfferState",
    "OfferView",
    "OffersView",
    "OperatorApp",
    "QuoteView",
    "RideState",
    "RideView",
    "RiderApp",
    "Role",
    "RpcError",
    "SessionView",
    "StatsView",
    "SurgeView",
    "TrackingView",
    "is_passing",
    "until_open",
]
