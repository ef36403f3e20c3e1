"""How a service calls another: one channel, a token of its own, retries where nothing was done, domain errors back."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.keepalive_time_ms", 30_000),
)


def peer_channel(address: str) -> grpc.aio.Channel:
    """A channel to another service; it connects when first used, and again whenever it must."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


OURS = frozenset(
    {
        Reason.TOKEN_MISSING,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.ROLE_NOT_ALLOWED,
        Reason.NOT_IMPLEMENTED,
        Reason.INTERNAL,
        Reason.DRAINING,
        Reason.DEADLINE_PASSED,
    }
)
"""Reasons that are between the two services: to our own caller they all mean that the other does not answer."""


class PeerToken:
    """The bearer metadata of a service's own calls, made by itself from the key that all services share."""

    def __init__(self, token_key: bytes, service: str) -> None:
        self._metadata = (("authorization", f"Bearer {mint_token(token_key, Role.SERVICE, service, 10 * 365 * 24 * 3600)}"),)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """For the `metadata` argument of a call."""
        return self._metadata


@asynccontextmanager
async def peer_errors(peer: str) -> AsyncIterator[None]:
    """Around a call to another service: its reasons come through as they are; silence becomes PEER_UNAVAILABLE."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        known = domain_error(error)
        if known is not None and known.reason not in OURS:
            raise known from None
        cause = known.reason if known is not None else error.code().name
        raise DomainError(
            Reason.PEER_UNAVAILABLE, f"{peer} does not answer: {error.details()}", peer=peer, cause=cause
        ) from error
