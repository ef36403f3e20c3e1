"""`hexhail bench eta`: which rides are asked about, and that none of them taught."""

from __future__ import annotations

import json
from datetime import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.accounting import eta_faults
from benchmarks.eta import EtaParams, run_eta
from hexhail.cities import load_city
from hexhail.cli.app import _check_json, _run
from hexhail.cli.bench import bench_commands
from hexhail.kernel.settings import Settings
from routing.city import router_for

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "o_lat,o_lon,d_lat,d_lon,departure_time,passengers,duration_s"


def rides_file(path: Path, count: int, seed: int, minutes: float = 60.0) -> Path:
    """Rides through gridport that take 2.5 times their free flow, but for chance, and spread over an hour."""
    city = load_city("gridport", Settings())
    router = router_for({**city.policies["routing"], "time_factor": 2.5}, city.time_zone, path.parent, None)
    rng = np.random.default_rng(seed)
    nodes = router.graph.places()  # type: ignore[attr-defined]
    ends = rng.integers(0, len(nodes), (2, count))
    taken_s = router.pair_times_s(nodes[ends[0]], nodes[ends[1]], 0) * np.exp(rng.normal(0.0, 0.1, count)) + 30
    at_s = np.sort(rng.uniform(0.0, minutes * 60, count))
    lines = [HEADER]
    for start, end, second, taken in zip(nodes[ends[0]], nodes[ends[1]], at_s.tolist(), taken_s.tolist(), strict=True):
        at = f"2024-05-01 12:{int(second // 60):02}:{int(second % 60):02}"
        lines.append(f"{start[0]:.6f},{start[1]:.6f},{end[0]:.6f},{end[1]:.6f},{at},1,{taken:.1f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def typed(*words: str) -> tuple[int, str]:
    app = bench_commands(lambda _: Settings(), _check_json, _run)  # not the whole command, which turns logs to its own output
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["eta", *words])
    return done.exit_code, done.output


def test_any_two_files_of_rides_can_be_asked_about(tmp_path: Path) -> None:
    learn, test = rides_file(tmp_path / "learn.csv", 500, 1), rides_file(tmp_path / "test.csv", 200, 2)
    figures, picture = tmp_path / "eta.json", tmp_path / "eta.png"

    code, output = typed(
        "--city", "gridport", "--learn", str(learn), "--test", str(test), "--json", str(figures), "--plot", str(picture)
    )

    assert code == 0, output
    told = json.loads(figures.read_text())
    assert told["rides"] > 150
    assert told["mdape"] < 12
    assert {"bias", "constant_mdape", "error_p50_s", "error_p90_s"} <= set(told)
    assert not told["faults"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_file_is_parted_by_time_and_no_ride_is_on_both_sides(tmp_path: Path) -> None:
    rides, figures = rides_file(tmp_path / "rides.csv", 400, 1), tmp_path / "eta.json"
    whole = ("--city", "gridport", "--learn", str(rides), "--json", str(figures))

    code, output = typed(*whole, "--learn-until", "12:30", "--test-from", "12:30", "--seen-until", "13:00")
    assert code == 0, output
    told = json.loads(figures.read_text())
    assert told["rides"] + told["rides_learned"] <= 400
    assert not told["faults"]

    for words in ((), ("--learn-until", "12:30"), ("--learn-until", "12:30", "--test-from", "12:29")):
        code, output = typed(*whole, *words)
        assert code == 2
        assert "learned from would be asked about" in " ".join(output.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--city", "gridport"), "no rides of its own"),
        (("--city", "gridport", "--learn", "nowhere.csv", "--test", "neither.csv"), "nowhere.csv"),
        (("--city", "gridport", "--learn", "a", "--test", "b", "--test-from", "noon"), "is not a local time"),
        (("--city", "gridport", "--learn", "a", "--test", "a", "--learn-until", "12:00Z", "--test-from", "13:00"), "12:00Z"),
        (("--city", "atlantis", "--learn", "a", "--test", "b"), "atlantis"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_line(words: tuple[str, ...], complaint: str) -> None:
    code, output = typed(*words)
    assert code in {1, 2}
    assert complaint in output
    assert "Traceback" not in output


def test_the_same_file_by_another_name_is_the_same_file(tmp_path: Path) -> None:
    rides, alias = rides_file(tmp_path / "rides.csv", 5, 1), tmp_path / "alias.csv"
    alias.symlink_to(rides)
    with pytest.raises(ValueError, match="learned from would be asked about"):
        EtaParams(rides, alias, None, time(12, 0), None, None)


class Silent:
    """Shows no steps."""

    def begin(self, what: str) -> None:
        """Nobody is told."""


async def test_nothing_of_a_ride_but_its_ends_and_its_beginning_is_used(tmp_path: Path) -> None:
    city = load_city("gridport", Settings())
    learn, test = rides_file(tmp_path / "learn.csv", 200, 1), rides_file(tmp_path / "test.csv", 40, 2)
    header, *rows = test.read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other.csv"
    longer = [f"{row.rpartition(',')[0]},{1_000 + number}" for number, row in enumerate(rows)]
    other.write_text("\n".join((header, *longer)) + "\n", encoding="utf-8")

    said, said_of_longer = [
        (await run_eta(EtaParams(learn, file, None, None, None, None), city, tmp_path, Silent()))[1] for file in (test, other)
    ]

    np.testing.assert_array_equal(said.predicted_s, said_of_longer.predicted_s)
    np.testing.assert_array_equal(said.constant_s, said_of_longer.constant_s)
    assert said.taken_s.tolist() != said_of_longer.taken_s.tolist()


def test_a_leak_and_a_missing_time_are_faults() -> None:
    fine = np.array([100.0, 200.0])
    began_ms = np.array([2_000, 3_000])
    assert eta_faults(fine, fine, began_ms, 1_999) == []
    assert eta_faults(fine, fine, began_ms, None) == []
    assert len(eta_faults(fine, fine, began_ms, 2_000)) == 1
    assert len(eta_faults(np.array([100.0, np.inf]), fine, began_ms, None)) == 1
    assert len(eta_faults(fine, np.array([100.0, 0.0]), began_ms, None)) == 1
