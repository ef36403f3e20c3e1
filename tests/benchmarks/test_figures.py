"""What a report says of what was measured."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.figures import Figure, Report, Target, Verdict, median_of, percentile, rate_between

AT_LEAST = Target("ratio", "a ratio", "x", 0.4, 0.8)
AT_MOST = Target("delay", "a delay", "ms", 10, 3, at_most=True)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (AT_LEAST, 0.39, Verdict.BELOW),
        (AT_LEAST, 0.4, Verdict.FLOOR),
        (AT_LEAST, 0.8, Verdict.GOAL),
        (AT_MOST, 10.1, Verdict.BELOW),
        (AT_MOST, 10.0, Verdict.FLOOR),
        (AT_MOST, 3.0, Verdict.GOAL),
        (Target("rate", "a rate", "/s", 100), 1e9, Verdict.FLOOR),
        (Target("plain", "a figure"), 1.0, Verdict.NONE),
    ],
)
def test_a_verdict_compares_with_floor_and_goal(target: Target, value: float, verdict: Verdict) -> None:
    assert target.verdict(value) is verdict


def test_a_figure_is_the_median_of_its_repeats() -> None:
    assert median_of(AT_LEAST, [0.5, 0.9, 0.6]).value == 0.6


@pytest.mark.parametrize("samples", [[], [math.nan], [1.0, math.inf]])
def test_what_was_not_measured_is_no_figure(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        median_of(AT_LEAST, samples)


@pytest.mark.parametrize(
    ("from_s", "to_s", "rate"),
    [
        (0.5, 4.0, (90 - 10) / 3.5),
        (1.0, 3.5, (90 - 30) / 2.5),
        (1.2, 9.0, (91 - 30) / 3.5),
        (2.5, 3.0, (90 - 40) / 1.5),
        (-9.0, -8.0, 20.0),
    ],
)
def test_a_rate_counts_from_event_to_event(from_s: float, to_s: float, rate: float) -> None:
    progress = [(0.0, 10), (1.0, 30), (2.0, 40), (3.5, 90), (4.5, 91)]
    assert rate_between(progress, from_s, to_s) == pytest.approx(rate)


def test_no_event_is_no_rate() -> None:
    assert math.isnan(rate_between([], 0.0, 1.0))
    assert math.isnan(rate_between([(0.0, 0)], 0.0, 1.0))
    assert math.isnan(rate_between([(0.0, 0), (1.0, 5)], 2.0, 3.0))


def test_percentiles() -> None:
    assert percentile(np.arange(101.0), 99) == 99
    assert math.isnan(percentile(np.array([]), 99))


def test_a_report_is_json_with_each_figure_by_its_key_and_its_spread() -> None:
    figures = (median_of(AT_LEAST, [0.3, 0.5, 0.4]), Figure(AT_MOST, 2.0, (2.0, 4.0)))
    document = Report("some", figures, {"repeats": 3}, {"cores": 2}, {"things": 9}, ("a fault",)).as_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["ratio"], document["delay"]) == (0.4, 2.0)
    assert document["spread"] == {"ratio": [0.3, 0.5], "delay": [2.0, 4.0]}
    assert document["samples"] == {"ratio": [0.3, 0.5, 0.4], "delay": [2.0, 4.0]}
    assert document["verdicts"] == {
        "ratio": {"floor": 0.4, "goal": 0.8, "verdict": "above the floor"},
        "delay": {"floor": 10, "goal": 3, "verdict": "goal reached"},
    }
    assert (document["faults"], document["checked"]) == (["a fault"], {"things": 9})
