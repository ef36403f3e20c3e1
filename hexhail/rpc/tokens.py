"""Who is calling? Bearer tokens: signed JSON (RFC 7519), one subject and one role each. Their times are real time, always."""

from __future__ import annotations

import datetime as dt
import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import jwt

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import check_name, fleet_of

AUDIENCE = "hexhail"
_ALGORITHM = "HS256"


class Role(StrEnum):
    """What kind of caller a token speaks for."""

    RIDER = "rider"
    DRIVER = "driver"
    FLEET = "fleet"
    OPERATOR = "operator"
    SERVICE = "service"


EVERYONE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was verified.

    expires_at_s : when the token ends, Unix seconds of real time; whoever it speaks for is the same before and after
    """

    role: Role
    subject: str
    expires_at_s: float = field(default=math.inf, compare=False)

    def __str__(self) -> str:
        """As the event log names an actor: `driver/acme.d17`."""
        return f"{self.role}/{self.subject}"

    def may_report_for(self, driver_id: str) -> bool:
        """Is it the driver itself, or the fleet that the driver's id names?"""
        if self.role is Role.DRIVER:
            return self.subject == driver_id
        return self.role is Role.FLEET and fleet_of(driver_id) == self.subject


def mint_token(key: bytes, role: Role, subject: str, lifetime_s: float = 24 * 3600) -> str:
    """A token for this caller, valid from now. Raises INVALID_FIELD where the subject is not an id."""
    check_name("subject", subject)
    now = dt.datetime.now(dt.UTC)
    claims = {
        "sub": subject,
        "role": role.value,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + dt.timedelta(seconds=lifetime_s),
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def verify_token(key: bytes, token: str) -> Principal:
    """Whom does this token speak for? Raises TOKEN_EXPIRED or TOKEN_INVALID."""
    try:
        principal = _verified(key, token)
    except jwt.ExpiredSignatureError:
        raise _expired() from None
    except (jwt.InvalidTokenError, ValueError, DomainError) as error:
        raise DomainError(Reason.TOKEN_INVALID, f"the token is not one of ours: {error}") from None
    if principal.expires_at_s <= time.time():
        raise _expired()
    return principal


@lru_cache(maxsize=100_000)
def _verified(key: bytes, token: str) -> Principal:
    """What a token says was so from the first; only its time can run out. Services call with the same one again and again."""
    claims = jwt.decode(token, key, algorithms=[_ALGORITHM], audience=AUDIENCE, options={"require": ["exp", "sub", "role"]})
    return Principal(Role(claims["role"]), check_name("sub", claims["sub"]), float(claims["exp"]))


def _expired() -> DomainError:
    return DomainError(Reason.TOKEN_EXPIRED, "the token has expired: ask for a new one")
