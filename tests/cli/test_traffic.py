"""`hexhail traffic` as it is typed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from hexhail.cities import load_city
from hexhail.cli.app import _fail
from hexhail.cli.traffic import _free_flow, traffic_commands
from hexhail.kernel.settings import Settings
from routing.city import learned_city
from tests.benchmarks.test_eta import rides_file

if TYPE_CHECKING:
    from pathlib import Path


def typed(folder: Path, *words: str) -> tuple[int, str]:
    def settings_of(data_dir: Path | None) -> Settings:
        return Settings(data_dir=data_dir or folder, cache_dir=folder / "cache")

    done = CliRunner(env={"COLUMNS": "200"}).invoke(traffic_commands(settings_of, _fail), [*words])
    return done.exit_code, done.output


def test_what_was_learned_from_rides_can_be_seen(tmp_path: Path) -> None:
    rides, picture = rides_file(tmp_path / "rides.csv", 300, 1), tmp_path / "traffic.png"
    where = ("--city", "gridport", "--data-dir", str(tmp_path / "data"))

    code, output = typed(tmp_path, "show", *where, "--out", str(picture))
    assert code == 1
    assert "nothing is known" in output

    code, output = typed(tmp_path, "learn", *where, "--rides", str(rides))
    assert code == 0, output
    assert "rides learned from" in output
    assert (tmp_path / "data" / "traffic" / "gridport" / "traffic.npz").is_file()

    assert len(list((tmp_path / "data" / "traffic" / "gridport").glob("tables-*.npy"))) == 1  # none of free flow

    code, output = typed(tmp_path, "show", *where, "--out", str(picture))
    assert code == 0, output
    assert picture.read_bytes().startswith(b"\x89PNG")

    aside = tmp_path / "aside.npz"
    code, output = typed(tmp_path, "learn", *where, "--rides", str(rides), "--out", str(aside))
    assert code == 0, output
    code, output = typed(tmp_path, "show", *where, "--state", str(aside), "--out", str(picture))
    assert code == 0, output


def test_the_citys_own_factor_is_no_part_of_free_flow(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    city = load_city("gridport", settings)
    routing = {**city.policies["routing"], "time_factor": 2.0, "terminal_s": 60.0}
    city = replace(city, policies={**city.policies, "routing": routing})

    free = _free_flow(learned_city(city, settings), settings)

    edge, ends = 7, free.graph.places()[[free.graph.tail()[7], free.graph.head[7]]]
    assert free.pair_times_s(ends[:1], ends[1:], 0)[0] <= free.graph.time_s[edge] + 1e-3
    assert not list((tmp_path / "traffic").rglob("*.npy"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "is not there"), ("", "no row of a known format"), ("o_lat,o_lon\n1,2\n", "no row of a known format")],
)
def test_a_file_of_something_else_is_said_in_a_line(tmp_path: Path, content: str | None, complaint: str) -> None:
    rides = tmp_path / "rides.csv"
    if content is not None:
        rides.write_text(content, encoding="utf-8")

    code, output = typed(tmp_path, "learn", "--city", "gridport", "--rides", str(rides), "--data-dir", str(tmp_path))

    assert code == 1
    assert complaint in output
    assert not (tmp_path / "traffic" / "gridport" / "traffic.npz").exists()
