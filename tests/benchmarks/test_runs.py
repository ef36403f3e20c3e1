"""The benchmarks themselves, very small: every figure is there, what was sent is what was counted, and a lie is found out."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from benchmarks.accounting import Found, Tally
from benchmarks.columns_grpc import ColumnLoad, run_columns, run_flow
from benchmarks.hands import HandError, hand
from benchmarks.ingest import IngestParams, run_ingest
from benchmarks.match import MatchParams, run_match
from benchmarks.nearby import NearbyParams, run_nearby
from benchmarks.notebook import Notebook
from benchmarks.places import Drivers, manhattan_spread
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.kernel.randomness import generator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.hands import Hand

SMALL_INGEST = IngestParams(
    seconds=0.25, repeats=1, streams=8, connections=2, drivers=160, fleet_streams=2, rows=20, idle_streams=10
)
SMALL_NEARBY = NearbyParams(
    repeats=1, drivers=300, questions=10, seconds=0.4, questions_per_s=50, fixes_per_s=200, suburb_questions=5
)
SMALL_MATCH = MatchParams(
    rate=8,
    seconds=1,
    warm_s=0.5,
    first_rate=8,
    last_rate=8,
    step_s=0.5,
    drivers=200,
    online=100,
    think_s=0.1,
    ride_s=0.5,
    late_s=60,
)


class Told:
    """Counts the steps that a run shows."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def begin(self, what: str) -> None:
        self.steps.append(what)


def check_report(report: Report, keys: set[str]) -> dict[str, Any]:
    document = report.as_json()
    assert report.faults == ()
    assert keys <= document.keys()
    assert all(math.isfinite(figure.value) for figure in report.figures)
    assert all(count > 0 for count in report.checked.values())
    return document


async def test_ingest_accounts_for_every_fix(tmp_path: Path) -> None:
    told = Told()
    report = await run_ingest(SMALL_INGEST, tmp_path, tmp_path / "no-data", told)
    keys = {"stream_vs_discard", "streams_per_s", "columns_vs_geoadd", "columns_per_s", "kb_per_stream"}
    document = check_report(report, keys)
    assert document["stream_vs_discard"] == pytest.approx(document["streams_per_s"] / document["discard_per_s"])
    assert document["columns_vs_geoadd"] == pytest.approx(document["columns_per_s"] / document["geoadd_per_s"])
    assert document["checked"]["positions read back"] == SMALL_INGEST.streams + SMALL_INGEST.drivers
    assert document["checked"]["drivers counted"] == SMALL_INGEST.drivers
    assert len(told.steps) == SMALL_INGEST.steps


async def test_nearby_checks_every_answer(tmp_path: Path) -> None:
    told = Told()
    report = await run_nearby(SMALL_NEARBY, tmp_path, tmp_path / "no-data", told)
    document = check_report(report, {"ring_vs_doubling", "ring_vs_geosearch", "grpc_p50_ms", "grpc_p99_ms", "fixes_per_s"})
    assert document["grpc_p50_ms"] <= document["grpc_p99_ms"]
    assert document["suburb_empty_cells_read"] == 0
    assert document["checked"]["nearby answers against the baselines"] == SMALL_NEARBY.questions
    assert document["checked"]["nearby answers while drivers move"] == SMALL_NEARBY.asked
    assert document["checked"]["positions read back"] == SMALL_NEARBY.drivers
    assert len(told.steps) == SMALL_NEARBY.steps


async def test_match_serves_every_ride_and_finds_it_in_postgresql(tmp_path: Path) -> None:
    told = Told()
    report = await run_match(SMALL_MATCH, tmp_path, tmp_path / "no-data", told)
    document: dict[str, Any] = report.as_json()
    assert report.faults == ()
    assert document["double_assignments"] == document["lost"] == 0
    assert document["rides_per_s"] == pytest.approx(SMALL_MATCH.first_rate)
    assert document["first_offer_p50_ms"] <= document["first_offer_p99_ms"]
    assert document["failed_share"] == 0
    checked = document["checked"]
    assert checked["assignments"] == checked["rides: ended"] == checked["rides against PostgreSQL"] == 16
    assert len(told.steps) == SMALL_MATCH.steps


@pytest.mark.parametrize("wrong", [{"drivers": 10, "online": 11}, {"growth": 1.0}, {"share": 0.0}, {"rate": 0.0}])
def test_a_load_of_rides_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        MatchParams(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"drivers": 100, "rows": 20, "fleet_streams": 2},
        {"repeats": 0},
        {"seconds": 0.0},
        {"streams": 200_000},
    ],
)
def test_what_would_measure_something_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        IngestParams(**wrong)


class Forger(rpc.LocationServiceServicer):
    """A server that acknowledges the fixes of a fleet, and of the second batch as many as it is told to."""

    def __init__(self, accepted: int, dropped: int, skipped: int) -> None:
        self._forged = (accepted, dropped, skipped)

    async def StreamFleetFixes(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamFleetFixesRequest], context: Any
    ) -> AsyncIterator[pb.StreamFleetFixesResponse]:
        batches = -1
        async for request in request_iterator:
            batches += 1
            if not batches:
                yield pb.StreamFleetFixesResponse(session_opened=pb.SessionOpened(session_id=1))
                continue
            accepted, dropped, skipped = self._forged if batches == 2 else (len(request.columns.driver_index), 0, 0)
            drops = [fix_pb2.FixDrop(reason=fix_pb2.FIX_DROP_REASON_NOT_NEWER, count=dropped)] if dropped else []
            up_to = batches - (skipped if batches == 2 else 0)
            yield pb.StreamFleetFixesResponse(ack=pb.FixAck(up_to_sequence=up_to, accepted=accepted, drops=drops))


@pytest.fixture(scope="module")
def load_hand() -> Iterator[Hand]:
    with hand("test") as ours:
        yield ours


def columns_for(address: str, tmp_path: Path) -> ColumnLoad:
    drivers = Drivers(manhattan_spread(tmp_path).draw(40, generator(1)), 1)
    return ColumnLoad(address, "bench", "token", drivers, streams=1, rows=20, seconds=0.0)


@pytest.mark.parametrize(
    ("forged", "complaints"),
    [
        ((20, 0, 0), []),
        ((19, 0, 0), ["40 fixes sent, but 39 accepted and 0 dropped"]),
        ((21, 0, 0), ["40 fixes sent, but 41 accepted and 0 dropped"]),
        ((19, 1, 0), ["fixes dropped for NOT_NEWER (1)"]),
    ],
)
async def test_a_server_that_miscounts_is_found_out(
    tmp_path: Path, load_hand: Hand, forged: tuple[int, int, int], complaints: list[str]
) -> None:
    server = grpc.aio.server()
    rpc.add_LocationServiceServicer_to_server(Forger(*forged), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        run = await load_hand.do(run_columns, columns_for(f"127.0.0.1:{port}", tmp_path))
    finally:
        await server.stop(None)
    notebook = Notebook()
    notebook.check_tally("load", run.tally)
    assert len(notebook.faults) == len(complaints)
    assert all(complaint in fault for complaint, fault in zip(complaints, notebook.faults, strict=True))


class Askable:
    """A service that knows these positions."""

    def __init__(self, positions_e7: dict[str, tuple[int, int]]) -> None:
        self._positions_e7 = positions_e7

    async def positions_e7(self, driver_ids: list[str]) -> dict[str, tuple[int, int]]:
        return {each: self._positions_e7[each] for each in driver_ids if each in self._positions_e7}


async def test_a_service_that_has_a_driver_elsewhere_or_finds_another_is_found_out() -> None:
    said = {"a": (407_500_000, -739_900_000), "b": (407_500_000, -739_800_000)}
    notebook = Notebook()
    calls: Any = Askable({**said, "b": (407_500_001, -739_800_000)})
    await notebook.check_positions("load", calls, said)
    assert "1 of 2 drivers are not where they last said" in notebook.faults[0]
    places = [(40.75, -73.99)]
    for driver_ids, complete, faults in ((("a",), True, 0), (("b",), True, 1), (("a",), False, 1)):
        notebook = Notebook()
        notebook.check_answers("ask", places, [Found(driver_ids, (0.0,), (0,), complete)], 1, said, 5_000)
        assert len(notebook.faults) == faults
    assert notebook.checked["nearby answers against all drivers"] == 1


def test_a_load_that_was_never_sent_is_no_success() -> None:
    notebook = Notebook()
    notebook.check_tally("load", Tally())
    assert notebook.faults == ["load: nothing was sent"]


async def test_what_goes_wrong_in_a_hand_is_told(tmp_path: Path, load_hand: Hand) -> None:
    nobody = columns_for(f"unix:{tmp_path}/nobody.sock", tmp_path)
    with pytest.raises(HandError, match="UNAVAILABLE"):
        await load_hand.do(run_columns, nobody)
    with pytest.raises(HandError, match="UNAVAILABLE"):
        await load_hand.start(run_flow, nobody)


async def test_a_hand_that_has_ended_is_told() -> None:
    with hand("test") as ours, pytest.raises(HandError, match="has ended"):
        await ours.do(os._exit, 3)
