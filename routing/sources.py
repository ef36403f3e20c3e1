"""Which router answers now? A city's travel times change while a service runs: what asks, asks its source each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.model import Router

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """An answer about travel times, and whose it is.

    version : of the router that gave it
    fell_back : another router than the city's own gave it, since that one did not answer
    """

    value: T
    version: str
    fell_back: bool = False


class RouterSource(Protocol):
    """Where a city's travel times come from."""

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does the present router answer? The whole question goes to one router, so all of it is of one version.

        Raises what the question raises of itself (ValueError, NO_ROUTE).
        """
        ...


class FixedSource:
    """Always the same router, in this process."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does it answer?"""
        return Answered(question(self._router), self._router.version)
