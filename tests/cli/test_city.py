"""`hexhail city import`: what it writes, what it says, how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hexhail.cli.app import app
from routing.loaders import load_road_graph

TOWN = """<osm version="0.6">
<node id="1" lat="40.0" lon="-74.0"/><node id="2" lat="40.001" lon="-74.0"/><node id="3" lat="40.002" lon="-74.0"/>
<node id="8" lat="40.1" lon="-74.0"/><node id="9" lat="40.1001" lon="-74.0"/>
<way id="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><tag k="highway" v="residential"/></way>
<way id="2"><nd ref="8"/><nd ref="9"/><tag k="highway" v="residential"/><tag k="oneway" v="yes"/></way>
<way id="3"><nd ref="1"/><nd ref="9"/><tag k="highway" v="residential"/><tag k="access" v="no"/></way>
</osm>"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "town.osm").write_text(TOWN)


def typed(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["city", *words], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def test_a_map_becomes_a_road_file_and_a_table_tells_what_became_of_it() -> None:
    code, told, _ = typed("import", "town.osm", "--speed", "residential=20")
    graph, report = load_road_graph(Path("town.hexroads"))

    assert code == 0
    assert (graph.n_nodes, graph.n_edges) == (2, 2)
    assert graph.length_m / graph.time_s * 3.6 == pytest.approx(20, rel=1e-3)
    assert report.ways_closed == 1
    assert "OpenStreetMap XML" in told
    assert "junctions, each of which reaches every other" in told
    assert "roads that taxis may not use" in told
    assert "written to town.hexroads" in told


def test_much_that_hangs_together_with_nothing_is_remarked_upon() -> None:
    Path("town.osm").write_text(TOWN.replace('lat="40.1001"', 'lat="40.2"'))

    assert "was the map cut rightly?" in typed("import", "town.osm")[1]


def test_a_road_file_can_be_put_where_one_likes_and_imported_again() -> None:
    typed("import", "town.osm", "--out", "there/a.hexroads")
    code, _, _ = typed("import", "there/a.hexroads", "--out", "b.hexroads")

    assert code == 0
    assert Path("there/a.hexroads").read_bytes() == Path("b.hexroads").read_bytes()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("import", "nowhere.osm"), "nowhere.osm"),
        (("import", "cut.osm"), "cut.osm: cannot be read as OpenStreetMap data"),
        (("import", "."), "directory"),
        (("import", "town.osm", "--speed", "footway=5"), "'footway' is no class"),
        (("import", "town.osm", "--speed", "residential"), "'residential' is not such as"),
        (("import", "town.osm", "--speed", "residential=0"), "residential is 0.0, not above 0"),
        (("import", "town.osm", "--out", "town.osm"), "is the map itself"),
    ],
)
def test_a_failure_is_one_line_and_writes_nothing(words: tuple[str, ...], problem: str) -> None:
    Path("cut.osm").write_text(TOWN[:-20])
    before = {path: path.read_bytes() for path in Path().iterdir()}

    code, _, told = typed(*words)

    assert code == 1
    assert problem in told
    assert told.startswith("hexhail: ")
    assert told.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_help_teaches() -> None:
    _, told, _ = typed("import", "--help")

    assert ".osm.pbf" in told
    assert "--speed residential=25" in told
    assert "HEXHAIL_DATA" in told
