"""Which router answers now? A city's travel times change while a service runs: what asks, asks its source each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from hexhail.kernel.ids import CityId
    from routing.model import Router

    Loops = Mapping[str, Callable[[], Coroutine[None, None, None]]]

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
    """Where a city's travel times come from. A source that needs neither loops nor an end inherits both."""

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does the present router answer? The whole question goes to one router, so all of it is of one version.

        Raises what the question raises of itself (ValueError, NO_ROUTE).
        """
        ...

    def loops(self) -> Loops:
        """What must run for as long as somebody asks (watching for newer travel times, say), by name: nothing, as a rule."""
        return {}

    async def aclose(self) -> None:
        """Lets go of what it holds: nobody asks any more."""
        return


class FixedSource(RouterSource):
    """Always the same router, in this process."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        """What does it answer?"""
        return Answered(question(self._router), self._router.version)


def loops_of(sources: Mapping[CityId, RouterSource]) -> Loops:
    """What must run beside a service that asks these sources, by name."""
    return {f"{name} {city_id}": loop for city_id, source in sources.items() for name, loop in source.loops().items()}
