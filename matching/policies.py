"""Ranking policies of one's own: which are installed, which one a city names, and what becomes of one that fails.

A package installs a policy under the entry point group `hexhail.ranking`: a function, or a dataclass with `__call__` whose fields
are the city's `[matching.ranking.options]`. It is foreign code, so it works on a copy, beside the event loop, one question at a
time and for so long; whatever it does, somebody ranks.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from dataclasses import dataclass, is_dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

import structlog

from hexhail.cities import CityError
from hexhail.kernel.tables import TableError, structure
from hexhail.kernel.units import MS_PER_S
from matching.ranking import POLICIES, PolicyError, PolicyFailure, checked_parts, rank, ranking_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import EntryPoint

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Ints
    from matching.metrics import MatchingMetrics
    from matching.ranking import Candidates, Ranking, RankingParams, RankingPolicy

log = structlog.get_logger(__name__)

GROUP: Final = "hexhail.ranking"


def policy_for(params: RankingParams, where: str, found: Iterable[EntryPoint] | None = None) -> RankingPolicy:
    """The policy that a city names: a built-in one, or else one that is installed (of those `found`, or wherever Python looks).

    `where` begins complaints. Raises CityError for a name that is not there, or there twice, for a policy that cannot be loaded,
    and for options that it does not take.
    """
    installed = list(entry_points(group=GROUP) if found is None else found)
    named = [each for each in installed if each.name == params.policy]
    if params.policy in POLICIES:
        for each in named:
            log.warning("a built-in policy has this name, so the installed one is not used", policy=each.name, of=_package(each))
        return POLICIES[params.policy]
    if not named:
        raise CityError(f"{where}: there is no policy {params.policy!r}: known are {_known(installed)}")
    if len(named) > 1:
        raise CityError(f"{where}: policy {params.policy!r} comes with {' and with '.join(_package(each) for each in named)}")
    return _made(named[0], params.options, where)


def _known(installed: list[EntryPoint]) -> str:
    built_in = f"{', '.join(sorted(POLICIES))} (built in)"
    others = [f"{each.name} ({_package(each)})" for each in sorted(installed, key=lambda each: each.name)]
    return ", ".join([built_in, *others])


def _package(policy: EntryPoint) -> str:
    return f"{policy.dist.name} {policy.dist.version}" if policy.dist else f"{policy.value}, of no package"


def _made(named: EntryPoint, options: Mapping[str, Any], where: str) -> RankingPolicy:
    about = f"policy {named.name!r} of {_package(named)}"
    try:
        loaded: Any = named.load()
    except Exception as error:
        raise CityError(f"{where}: {about} cannot be loaded: {type(error).__name__}: {error}") from error
    if isinstance(loaded, type) and is_dataclass(loaded):
        try:
            loaded = structure(options, loaded, f"{where}.options")
        except TableError as error:
            raise CityError(f"{error}, says {about}") from None
    elif options:
        raise CityError(f"{where}: {about} takes no options")
    if isinstance(loaded, type) or not callable(loaded):
        raise CityError(f"{where}: {about} is {named.value}, neither a function nor a dataclass that can be called")
    policy: RankingPolicy = loaded
    return policy


@dataclass(slots=True)
class _Record:
    """How the policy has done of late."""

    failures_in_a_row: int = 0
    off_until_ms: int = 0
    stuck: threading.Thread | None = None
    """Still at work on a question that nobody waits for any more."""


class Ranker:
    """Ranks for one city: by its policy, or by its fallback where that fails, and says so."""

    def __init__(
        self, city_id: str, params: RankingParams, policy: RankingPolicy, clock: Clock, metrics: MatchingMetrics
    ) -> None:
        self._city_id = city_id
        self._params = params
        self._fallback = replace(params, policy=params.fallback_policy, options={})
        self._policy = policy
        self._is_built_in = params.policy in POLICIES
        self._clock = clock
        self._metrics = metrics
        self._record = _Record()
        self._turn = asyncio.Lock()

    @property
    def is_built_in(self) -> bool:
        """Is the city's policy one of ours, which needs none of this?"""
        return self._is_built_in

    async def rank(self, candidates: Candidates) -> Ranking:
        """In which order are these drivers asked? Never raises for what an installed policy does."""
        self._metrics.rankings += 1
        if self._is_built_in:
            return rank(candidates, self._params)
        if not len(candidates):
            return ranking_by(self._params.policy, {}, candidates, self._params)
        try:
            parts = await self.parts(candidates, self._params.policy_limit_ms)
        except PolicyError as error:
            return replace(rank(candidates, self._fallback), failed_policy=self._params.policy, failure=error.failure)
        return ranking_by(self._params.policy, parts, candidates, self._params)

    async def parts(self, candidates: Candidates, limit_ms: float) -> dict[str, Ints]:
        """What its scores are made of, checked. Raises PolicyError where it fails or rests, which is counted and told here."""
        if self._clock.now_ms() < self._record.off_until_ms:
            self._metrics.policy_failures[PolicyFailure.SWITCHED_OFF] += 1
            raise PolicyError(PolicyFailure.SWITCHED_OFF, "rests")
        try:
            async with self._turn:  # one question at a time: a policy need not be safe for threads
                parts = await self._asked(candidates, limit_ms)
        except PolicyError as error:
            self._failed(error)
            raise
        if self._record.failures_in_a_row:
            log.info("policy works again", city_id=self._city_id, policy=self._params.policy)
            self._record.failures_in_a_row = 0
        return parts

    async def _asked(self, candidates: Candidates, limit_ms: float) -> dict[str, Ints]:
        if self._record.stuck is not None and self._record.stuck.is_alive():
            raise PolicyError(PolicyFailure.TOO_SLOW, "is still at work on an earlier question")
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        thread = _beside_the_loop(lambda: self._policy(_copy_of(candidates), self._params), answer)
        _, late = await asyncio.wait({answer}, timeout=limit_ms / MS_PER_S)
        if late:
            self._record.stuck = thread
            answer.cancel()
            raise PolicyError(PolicyFailure.TOO_SLOW, f"took more than {limit_ms:g} ms")
        error = answer.exception()
        if error is not None:
            raise PolicyError(PolicyFailure.RAISED, f"{type(error).__name__}: {error}, {_place_of(error)}") from error
        return checked_parts(answer.result(), len(candidates))

    def _failed(self, error: PolicyError) -> None:
        record, about = self._record, {"city_id": self._city_id, "policy": self._params.policy}
        record.failures_in_a_row += 1
        self._metrics.policy_failures[error.failure] += 1
        log.warning("policy failed", **about, failure=error.failure, detail=str(error))
        if record.failures_in_a_row >= self._params.policy_failures:
            record.off_until_ms = self._clock.now_ms() + round(self._params.policy_rest_s * MS_PER_S)
            log.error(
                "policy switched off for a while", **about, failures=record.failures_in_a_row, rest_s=self._params.policy_rest_s
            )


def _beside_the_loop(work: Callable[[], object], answer: asyncio.Future[object]) -> threading.Thread:
    """Starts work in a thread of its own, which keeps no process from ending; what comes of it is in `answer`."""
    loop = answer.get_loop()

    def settle(result: object, error: BaseException | None) -> None:
        if answer.done():
            return  # nobody waits any more
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def tell(result: object, error: BaseException | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - told to whoever asked, SystemExit too
            tell(None, _tellable(error))
        else:
            tell(result, None)

    thread = threading.Thread(target=run, name="ranking policy", daemon=True)
    thread.start()
    return thread


def _copy_of(candidates: Candidates) -> Candidates:
    """What a policy changes, it changes there."""
    return candidates.take(range(len(candidates)))


def _place_of(error: BaseException) -> str:
    """Where it was raised. The log renders whole tracebacks, on the event loop: half a second would be lost to each."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"


def _tellable(error: BaseException) -> BaseException:
    """Futures refuse StopIteration."""
    return error if isinstance(error, Exception) and not isinstance(error, StopIteration) else RuntimeError(repr(error))
