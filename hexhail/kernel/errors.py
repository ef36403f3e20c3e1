"""Why something cannot be done, in the words of the domain. Only `hexhail.rpc` knows which status code a reason travels under."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto


class Reason(StrEnum):
    """Why a call failed. Mirrors `ErrorReason` in proto/hexhail/api/common/v1/error_reason.proto, where each is explained."""

    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last: list[str]) -> str:
        return name

    INVALID_FIELD = auto()
    UNKNOWN_CITY = auto()
    OUTSIDE_SERVICE_AREA = auto()
    UNKNOWN_PRODUCT = auto()
    TOKEN_MISSING = auto()
    TOKEN_INVALID = auto()
    TOKEN_EXPIRED = auto()
    ROLE_NOT_ALLOWED = auto()
    NOT_YOURS = auto()
    RIDE_NOT_FOUND = auto()
    DRIVER_NOT_FOUND = auto()
    OFFER_NOT_FOUND = auto()
    QUOTE_NOT_FOUND = auto()
    REQUEST_ID_REUSED = auto()
    ALREADY_TAKEN = auto()
    OFFER_CLOSED = auto()
    ILLEGAL_TRANSITION = auto()
    RIDER_BUSY = auto()
    DRIVER_BUSY = auto()
    DRIVER_OFFLINE = auto()
    DRIVER_SUSPENDED = auto()
    QUOTE_EXPIRED = auto()
    QUOTE_ALTERED = auto()
    QUOTE_USED = auto()
    NO_ROUTE = auto()
    EPOCH_CHANGED = auto()
    CONFLICT = auto()
    OVERLOADED = auto()
    STORE_UNAVAILABLE = auto()
    PEER_UNAVAILABLE = auto()
    SURGE_UNKNOWN = auto()
    DRAINING = auto()
    DEADLINE_PASSED = auto()
    NOT_IMPLEMENTED = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path in the message, and what is wrong with it."""

    field: str
    description: str


class DomainError(Exception):
    """Something cannot be done, for a reason out of one list.

    `metadata` names the things concerned (ids, states, limits: never coordinates), `violations` the bad fields of a request.
    """

    def __init__(
        self, reason: Reason, message: str = "", *, violations: tuple[FieldViolation, ...] = (), **metadata: object
    ) -> None:
        self.reason = reason
        self.message = message or reason.value.replace("_", " ").lower()
        self.violations = violations
        self.metadata = {key: str(value) for key, value in metadata.items()}
        super().__init__(self.message)

    def __str__(self) -> str:
        """Reason, message and metadata on one line."""
        details = ", ".join(f"{key}={value}" for key, value in self.metadata.items())
        return f"{self.reason}: {self.message}" + (f" ({details})" if details else "")


def invalid(field: str, description: str, **metadata: object) -> DomainError:
    """The error for one bad field."""
    violation = FieldViolation(field, description)
    return DomainError(Reason.INVALID_FIELD, f"{field} {description}", violations=(violation,), field=field, **metadata)
