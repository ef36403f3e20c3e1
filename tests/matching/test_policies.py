"""Policies that others wrote: which one a city gets, and that there is an order whatever they do."""

from __future__ import annotations

import threading
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.cities import CityError
from hexhail.kernel.clock import ManualClock
from matching.metrics import MatchingMetrics
from matching.policies import GROUP, Ranker, policy_for
from matching.ranking import MAX_PART_MILLI, POLICIES, PolicyError, PolicyFailure, RankingParams, checked_parts, eta
from tests.matching.rides import NOW_MS, candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hexhail.kernel.units import Ints
    from matching.ranking import Candidates, Ranking

WHERE = "town.toml [matching].ranking"
PATIENT = RankingParams(policy="theirs", policy_limit_ms=60_000.0, policy_failures=2, policy_rest_s=60.0)
HERE = "tests.matching.test_policies"


def farthest(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
    """A policy that nobody wants, and that is told from all others."""
    return {"distance": np.rint(candidates.distance_m * 1000).astype(np.int64)}


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


class City:
    """One city's ranker, whose policy a test can change."""

    def __init__(self, policy: Any = farthest, params: RankingParams = PATIENT) -> None:
        self.policy = policy
        self.asked = 0
        self.clock = ManualClock(NOW_MS)
        self.metrics = MatchingMetrics()
        self.ranker = Ranker("town", params, self._ask, self.clock, self.metrics)

    def _ask(self, candidates: Candidates, params: RankingParams) -> Mapping[str, Ints]:
        self.asked += 1
        given: Mapping[str, Ints] = self.policy(candidates, params)
        return given

    async def rank(self) -> Ranking:
        return await self.ranker.rank(candidates("near", "far"))


def test_a_built_in_policy_needs_nothing_installed() -> None:
    assert policy_for(RankingParams(policy="eta"), WHERE, []) is eta


def test_an_installed_policy_is_found_by_its_name() -> None:
    params = RankingParams(policy="farthest")
    assert policy_for(params, WHERE, [entry("farthest", f"{HERE}:farthest")]).__name__ == "farthest"  # type: ignore[attr-defined]


def test_an_unknown_name_is_answered_with_all_that_is_there_and_whose_it_is() -> None:
    installed = [entry("farthest", f"{HERE}:farthest")]
    with pytest.raises(
        CityError,
        match=r"^town\.toml \[matching\]\.ranking: there is no policy 'nearest': "
        r"known are classic, eta, eta_weighted \(built in\), "
        r"farthest \(tests\.matching\.test_policies:farthest, of no package\)$",
    ):
        policy_for(RankingParams(policy="nearest"), WHERE, installed)


@pytest.mark.parametrize(
    ("found", "options", "complaint"),
    [
        ([entry("p", f"{HERE}:farthest"), entry("p", f"{HERE}:City")], {}, "'p' comes with .* and with "),
        ([entry("p", "nowhere_to_be_found:policy")], {}, "cannot be loaded: ModuleNotFoundError"),
        ([entry("p", f"{HERE}:NOTHING")], {}, "cannot be loaded: AttributeError"),
        ([entry("p", f"{HERE}:WHERE")], {}, "neither a function nor a dataclass that can be called"),
        ([entry("p", f"{HERE}:City")], {}, "neither a function nor a dataclass that can be called"),
        ([entry("p", f"{HERE}:farthest")], {"far": 1}, "takes no options"),
    ],
)
def test_what_cannot_be_a_policy_is_refused_before_the_service_begins(
    found: list[EntryPoint], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CityError, match=complaint):
        policy_for(RankingParams(policy="p", options=options), WHERE, found)


def test_a_built_in_policy_keeps_its_name() -> None:
    assert policy_for(RankingParams(policy="eta"), WHERE, [entry("eta", f"{HERE}:farthest")]) is eta


def test_the_fallback_must_be_built_in_and_options_are_for_installed_policies() -> None:
    with pytest.raises(ValueError, match="fallback_policy 'theirs' is not among the built-in classic, eta, eta_weighted"):
        RankingParams(fallback_policy="theirs")
    with pytest.raises(ValueError, match="'eta' is built in and takes none"):
        RankingParams(policy="eta", options={"far": 1})


async def test_a_policy_that_does_its_work_decides() -> None:
    ranking = await City().rank()
    assert (ranking.order.tolist(), ranking.policy, ranking.failure) == ([1, 0], "theirs", None)


def raising(error: BaseException) -> Callable[..., Any]:
    def policy(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
        raise error

    return policy


def giving(given: object) -> Callable[..., Any]:
    def policy(candidates: Candidates, params: RankingParams) -> Any:
        return given

    return policy


BAD: list[tuple[Any, PolicyFailure]] = [
    (raising(ZeroDivisionError("by nothing")), PolicyFailure.RAISED),
    (raising(StopIteration()), PolicyFailure.RAISED),
    (raising(SystemExit(1)), PolicyFailure.RAISED),
    (giving(None), PolicyFailure.WRONG_SHAPE),
    (giving({}), PolicyFailure.WRONG_SHAPE),
    (giving(np.zeros(2, np.int64)), PolicyFailure.WRONG_SHAPE),
    (giving({"a": [1, 2]}), PolicyFailure.WRONG_SHAPE),
    (giving({"a": np.zeros(3, np.int64)}), PolicyFailure.WRONG_SHAPE),
    (giving({"a": np.zeros((2, 1), np.int64)}), PolicyFailure.WRONG_SHAPE),
    (giving({f"p{n}": np.zeros(2, np.int64) for n in range(33)}), PolicyFailure.WRONG_SHAPE),
    (giving({"a": np.array([1.0, np.nan])}), PolicyFailure.NOT_FINITE),
    (giving({"a": np.array([1.0, np.inf])}), PolicyFailure.NOT_FINITE),
    (giving({"a": np.array([1.0, 2.0])}), PolicyFailure.WRONG_TYPE),
    (giving({"a": np.array([True, False])}), PolicyFailure.WRONG_TYPE),
    (giving({"a": np.array(["1", "2"])}), PolicyFailure.WRONG_TYPE),
    (giving({7: np.zeros(2, np.int64)}), PolicyFailure.WRONG_TYPE),
    (giving({"": np.zeros(2, np.int64)}), PolicyFailure.WRONG_TYPE),
    (giving({"a": np.array([0, MAX_PART_MILLI + 1])}), PolicyFailure.OUT_OF_RANGE),
    (giving({"a": np.array([0, -MAX_PART_MILLI - 1])}), PolicyFailure.OUT_OF_RANGE),
    (giving({"a": np.array([0, 2**64 - 1], np.uint64)}), PolicyFailure.OUT_OF_RANGE),
]


@pytest.mark.parametrize(("policy", "failure"), BAD, ids=lambda each: each.value if isinstance(each, PolicyFailure) else "")
async def test_a_policy_that_fails_loses_the_question_to_the_fallback_which_says_so(policy: Any, failure: PolicyFailure) -> None:
    city = City(policy)
    ranking = await city.rank()
    assert ranking.order.tolist() == [0, 1]
    assert (ranking.policy, ranking.failed_policy, ranking.failure) == ("eta", "theirs", failure)
    assert city.metrics.policy_failures == {failure: 1}


async def test_a_policy_that_does_not_come_back_is_not_waited_for_nor_asked_meanwhile() -> None:
    go_on = threading.Event()

    def slow(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
        go_on.wait()
        return farthest(candidates, params)

    city = City(slow, RankingParams(policy="theirs", policy_limit_ms=1.0, policy_failures=100))
    try:
        assert (await city.rank()).failure is PolicyFailure.TOO_SLOW
        assert (await city.rank()).failure is PolicyFailure.TOO_SLOW
        assert city.asked == 1
    finally:
        go_on.set()


async def test_after_some_failures_in_a_row_it_rests_and_is_tried_again() -> None:
    city = City(raising(ValueError("no")))
    assert [(await city.rank()).failure for _ in range(4)] == [PolicyFailure.RAISED] * 2 + [PolicyFailure.SWITCHED_OFF] * 2
    assert city.asked == 2
    city.clock.advance(60_000)
    assert [(await city.rank()).failure for _ in range(2)] == [PolicyFailure.RAISED, PolicyFailure.SWITCHED_OFF]
    city.clock.advance(60_000)
    city.policy = farthest
    assert (await city.rank()).policy == "theirs"
    city.policy = raising(ValueError("no"))
    assert [(await city.rank()).failure for _ in range(2)] == [PolicyFailure.RAISED] * 2


async def test_single_failures_between_successes_switch_nothing_off() -> None:
    city = City()
    for _ in range(3):
        city.policy = raising(ValueError("no"))
        assert (await city.rank()).failure is PolicyFailure.RAISED
        city.policy = farthest
        assert (await city.rank()).failure is None


async def test_what_a_policy_does_to_its_columns_it_does_to_a_copy() -> None:
    def vandal(candidates: Candidates, params: RankingParams) -> dict[str, Ints]:
        candidates.distance_m[:] = np.nan
        candidates.rating_milli[:] = 0
        return {"nothing": np.zeros(len(candidates), np.int64)}

    city, who = City(vandal), candidates("near", "far")
    ranking = await city.ranker.rank(who)
    assert ranking.policy == "theirs"
    assert who.distance_m.tolist() == [500.0, 1_000.0]
    assert who.rating_milli.tolist() == [4_500, 4_500]


async def test_what_a_policy_keeps_of_its_answer_changes_no_score() -> None:
    kept = np.array([1, 2])
    ranking = await City(giving({"a": kept})).rank()
    kept[:] = 9
    assert ranking.parts["a"].tolist() == [1, 2]


async def test_nobody_is_ranked_without_asking() -> None:
    city = City(raising(ValueError("nobody there")))
    assert len((await city.ranker.rank(candidates())).order) == 0
    assert city.asked == 0


async def test_built_in_policies_are_asked_directly() -> None:
    params = RankingParams(policy="eta", policy_limit_ms=0.001)
    ranker = Ranker("town", params, POLICIES["eta"], ManualClock(NOW_MS), MatchingMetrics())
    assert (await ranker.rank(candidates("near", "far"))).order.tolist() == [0, 1]


def test_small_whole_numbers_of_any_width_will_do() -> None:
    checked = checked_parts({"a": np.array([1, 2], np.int16)}, 2)
    assert checked["a"].dtype == np.int64
    with pytest.raises(PolicyError, match="part 'a' is shape \\(2,\\), not an array of 3"):
        checked_parts({"a": np.array([1, 2])}, 3)
