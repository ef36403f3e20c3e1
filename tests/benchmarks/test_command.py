"""`hexhail bench` as it is typed: what it prints and writes, and with which code it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from benchmarks.figures import Report, Target, median_of
from hexhail.cli.bench import bench_commands
from hexhail.kernel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from benchmarks.ingest import IngestParams
    from benchmarks.view import Steps

FIGURES = (
    median_of(Target("high", "well done", "x", 0.4, 0.8), [0.9]),
    median_of(Target("low", "too slow", "x", 0.4, 0.8), [0.1]),
)


def finish(work: Coroutine[Any, Any, Report]) -> Report:
    """Runs to its end what waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    report: Report = ended.value.value
    return report


def typed(monkeypatch: pytest.MonkeyPatch, faults: tuple[str, ...], *words: str) -> tuple[int, str, list[IngestParams]]:
    asked: list[IngestParams] = []

    async def run(params: IngestParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
        asked.append(params)
        steps.begin("measuring")
        return Report("ingest", FIGURES, {"repeats": params.repeats}, {}, {"fixes": 7}, faults)

    monkeypatch.setattr("hexhail.cli.bench.run_ingest", run)
    app = bench_commands(lambda _: Settings(), lambda _: None, finish)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["ingest", *words])
    return done.exit_code, done.output, asked


def test_a_figure_below_its_floor_is_said_plainly_and_ends_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    json_file = tmp_path / "figures.json"
    code, output, _ = typed(monkeypatch, (), "--json", str(json_file))
    assert code == 0, output
    assert "bench: measuring" in output
    assert "below the floor" in output
    assert "goal reached" in output
    assert json.loads(json_file.read_text())["low"] == 0.1


def test_what_does_not_add_up_is_named_and_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    json_file = tmp_path / "figures.json"
    code, output, _ = typed(monkeypatch, ("columns: a fix was lost",), "--json", str(json_file))
    assert code == 1
    assert "does not add up: columns: a fix was lost" in output
    assert json.loads(json_file.read_text())["faults"] == ["columns: a fix was lost"]


def test_options_change_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, asked = typed(monkeypatch, (), "--seconds", "0.5", "--repeats", "2", "--buckets", "4")
    assert code == 0, output
    assert (asked[0].seconds, asked[0].repeats, asked[0].buckets) == (0.5, 2, 4)


def test_what_would_measure_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, asked = typed(monkeypatch, (), "--drivers", "100")
    assert code == 2
    assert "100 drivers on 4 streams" in output
    assert not asked
