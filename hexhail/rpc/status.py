"""Which gRPC status does each reason travel under, and back: the one table between domain errors and the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from hexhail.kernel.errors import DomainError, FieldViolation, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAIN = "hexhail"
DETAILS_KEY = "grpc-status-details-bin"

_CODES: dict[grpc.StatusCode, tuple[Reason, ...]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (
        Reason.INVALID_FIELD,
        Reason.UNKNOWN_CITY,
        Reason.OUTSIDE_SERVICE_AREA,
        Reason.UNKNOWN_PRODUCT,
        Reason.QUOTE_ALTERED,
    ),
    grpc.StatusCode.UNAUTHENTICATED: (Reason.TOKEN_MISSING, Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED),
    grpc.StatusCode.PERMISSION_DENIED: (Reason.ROLE_NOT_ALLOWED, Reason.NOT_YOURS),
    grpc.StatusCode.NOT_FOUND: (
        Reason.RIDE_NOT_FOUND,
        Reason.DRIVER_NOT_FOUND,
        Reason.OFFER_NOT_FOUND,
        Reason.QUOTE_NOT_FOUND,
    ),
    grpc.StatusCode.ALREADY_EXISTS: (Reason.REQUEST_ID_REUSED,),
    grpc.StatusCode.FAILED_PRECONDITION: (
        Reason.ALREADY_TAKEN,
        Reason.OFFER_CLOSED,
        Reason.ILLEGAL_TRANSITION,
        Reason.RIDER_BUSY,
        Reason.DRIVER_BUSY,
        Reason.DRIVER_OFFLINE,
        Reason.DRIVER_SUSPENDED,
        Reason.QUOTE_EXPIRED,
        Reason.QUOTE_USED,
        Reason.NO_ROUTE,
        Reason.EPOCH_CHANGED,
    ),
    grpc.StatusCode.ABORTED: (Reason.CONFLICT,),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Reason.OVERLOADED,),
    grpc.StatusCode.UNAVAILABLE: (
        Reason.STORE_UNAVAILABLE,
        Reason.PEER_UNAVAILABLE,
        Reason.SURGE_UNKNOWN,
        Reason.DRAINING,
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Reason.DEADLINE_PASSED,),
    grpc.StatusCode.UNIMPLEMENTED: (Reason.NOT_IMPLEMENTED,),
    grpc.StatusCode.INTERNAL: (Reason.INTERNAL,),
}
CODE_OF: dict[Reason, grpc.StatusCode] = {reason: code for code, reasons in _CODES.items() for reason in reasons}


def status_details(error: DomainError) -> bytes:
    """The google.rpc.Status of an error, packed: ErrorInfo, then BadRequest and RetryInfo where they apply."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations
                ]
            )
        )
    if "retry_after_ms" in error.metadata:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.metadata["retry_after_ms"]))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    number: int = CODE_OF[error.reason].value[0]
    packed = [any_pb2.Any() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    packed_status: bytes = status_pb2.Status(code=number, message=error.message, details=packed).SerializeToString()
    return packed_status


def error_of(details: bytes | None, code: grpc.StatusCode, message: str) -> DomainError | None:
    """The domain error that a status carries; None where it carries none of ours (a broken connection, say)."""
    if details is None:
        return None
    status = status_pb2.Status()
    try:
        status.ParseFromString(details)
    except DecodeError:
        return None
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, bad, retry):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    reason = Reason(info.reason)
    if CODE_OF[reason] is not code:
        return None
    error = DomainError(reason, message, violations=violations)
    error.metadata = dict(info.metadata)  # whatever its names are, they are no arguments of ours
    return error


def details_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> bytes | None:
    """The packed status among trailing metadata."""
    for key, value in metadata or ():
        if key == DETAILS_KEY:
            return value if isinstance(value, bytes) else value.encode()
    return None


def domain_error(error: grpc.aio.AioRpcError) -> DomainError | None:
    """The domain error that a failed call brought back; None where it brought none of ours."""
    return error_of(details_in(error.trailing_metadata()), error.code(), error.details() or "")
