"""Several processes of one service behind one port: they share its callers, and each can fall alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.client import Addresses, Channels, DriverApp, FixAckView, FixReport, SessionView
from hexhail.kernel.geo import Place
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

READY_S = 60.0
PATIENCE_S = 30.0
CITY = "gridport"
HERE, THERE = (40.5, -74.0), (40.5002, -74.0)


async def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """What the condition gives, once it is true; fails naming `what`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                result = condition()
                if result := await result if asyncio.iscoroutine(result) else result:
                    return result
                await asyncio.sleep(0.05)  # no event tells of another process's doings
    except TimeoutError:
        pytest.fail(f"{what} within {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Workers:
    """`hexhail serve location --workers N`, running."""

    process: subprocess.Popen[bytes]
    folder: Path
    address: str

    def auth(self, role: Role, subject: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token(role, subject)}"),)

    def token(self, role: Role, subject: str) -> str:
        return mint_token(load_or_make_key(self.folder / "data", "tokens"), role, subject)

    def children(self) -> dict[str, psutil.Process]:
        """The address where each answers alone -> its process."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                found[child.environ()["HEXHAIL_WORKER_ADDRESS"]] = child
            except (psutil.Error, KeyError):
                continue  # it has just been started, or has just fallen
        return found

    def connections(self) -> list[int]:
        """How many connections each has."""
        port = int(self.address.rpartition(":")[2])
        return [
            sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in child.net_connections("tcp"))
            for child in self.children().values()
        ]

    def metric(self, name: str) -> list[float]:
        """What each worker's page says, summed over its labels."""
        values = []
        for log in sorted((self.folder / "data").glob("location-*.log")):
            shown = re.findall(r"showing metrics +address=(\S+)", log.read_text())[-1]
            with urllib.request.urlopen(f"http://{shown}/metrics", timeout=PATIENCE_S) as page:
                families = list(text_string_to_metric_families(page.read().decode()))
            values.append(sum(s.value for family in families for s in family.samples if s.name == name))
        return values


SERVE = ("serve", "location", "--city", CITY, "--workers", "2")


def begin(folder: Path, redis_url: str, words: tuple[str, ...] = SERVE, **more: str) -> subprocess.Popen[bytes]:
    """The command, with folders of the test's own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEXHAIL_")}
    environment = {
        **clean,
        "HEXHAIL_DATA_DIR": str(folder / "data"),
        "HEXHAIL_CACHE_DIR": str(folder / "cache"),
        "HEXHAIL_LOCATION_ADDRESS": "127.0.0.1:0",
        "HEXHAIL_METRICS_ADDRESS": "127.0.0.1:0",
        "HEXHAIL_REDIS_URL": redis_url,
        **more,
    }
    argv = (sys.executable, "-m", "hexhail", *words)
    with (folder / "out.log").open("wb") as out:
        return subprocess.Popen(argv, env=environment, stdout=out, stderr=out)


@asynccontextmanager
async def serving(folder: Path, redis_url: str, **more: str) -> AsyncIterator[Workers]:
    """Two workers, healthy, for the time of the block."""
    process = begin(folder, redis_url, SERVE, **more)
    log = folder / "out.log"
    try:
        await until(lambda: b"is served at" in log.read_bytes() or process.poll() is not None, "the workers serve", READY_S)
        served = re.search(r"location is served at (\S+) by 2 workers", log.read_text())
        assert served, log.read_text()
        yield Workers(process, folder, served[1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
async def workers(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> AsyncIterator[Workers]:
    async with serving(tmp_path_factory.mktemp("workers"), valkey_url) as running:
        yield running


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Any]:
    """A stub over a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield rpc.LocationServiceStub(channel)  # type: ignore[no-untyped-call, unused-ignore]


class Phone:
    """A driver's stream of fixes."""

    def __init__(self, stub: Any, workers: Workers, driver_id: str) -> None:
        self.call = stub.StreamFixes(metadata=workers.auth(Role.DRIVER, driver_id))

    async def open(self) -> int:
        await self.call.write(pb.StreamFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
        session_id: int = (await asyncio.wait_for(self.call.read(), PATIENCE_S)).session_opened.session_id
        return session_id

    async def report(self, sequence: int, place: tuple[float, float]) -> pb.FixAck:
        position = geo_pb2.LatLng(lat=place[0], lng=place[1])
        await self.call.write(pb.StreamFixesRequest(fix=fix_pb2.Fix(sequence=sequence, position=position)))
        ack: pb.FixAck = (await asyncio.wait_for(self.call.read(), PATIENCE_S)).ack
        return ack


async def is_healthy(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def test_callers_are_spread_over_the_workers(workers: Workers) -> None:
    """Who gets which is the kernel's dice: so they come until both have one."""
    async with asyncio.timeout(PATIENCE_S):
        stack = []
        while not (len(workers.connections()) == 2 and all(workers.connections())):
            channel = grpc.aio.insecure_channel(workers.address, options=(("grpc.use_local_subchannel_pool", 1),))
            stack.append(channel)
            await channel.channel_ready()
        for channel in stack:
            await channel.close()


async def test_a_driver_that_connects_to_another_worker_is_newer_there(workers: Workers) -> None:
    """Given a driver whose older stream is still open: what comes late on that one changes nothing."""
    first, second = sorted(workers.children())
    async with calling(first) as here, calling(second) as there:
        older, newer = Phone(here, workers, "d1"), Phone(there, workers, "d1")
        older_id = await older.open()
        assert (await older.report(1, HERE)).accepted == 1
        assert await newer.open() > older_id
        assert (await newer.report(1, THERE)).accepted == 1
        late = await older.report(2, HERE)
        assert late.accepted == 0
        assert [drop.reason for drop in late.drops] == [fix_pb2.FIX_DROP_REASON_NOT_NEWER]
        request = pb.GetDriverPositionsRequest(city_id=CITY, driver_ids=["d1"])
        for stub in (here, there):
            told = await stub.GetDriverPositions(request, metadata=workers.auth(Role.OPERATOR, "desk"))
            place = told.positions[0].position
            assert (place.lat, place.lng) == pytest.approx(THERE, abs=1e-6)


async def test_a_worker_that_falls_takes_nobody_with_it_and_comes_back(workers: Workers) -> None:
    falls, stays = sorted(workers.children())
    async with calling(stays) as stub:
        phone = Phone(stub, workers, "d2")
        await phone.open()
        assert (await phone.report(1, HERE)).accepted == 1
        fallen = workers.children()[falls]
        fallen.kill()
        await until(lambda: (now := workers.children().get(falls)) is not None and now.pid != fallen.pid, "it is back")
        await until(lambda: is_healthy(falls), "it serves again", READY_S)
        assert (await phone.report(2, HERE)).up_to_sequence == 2, "the other goes on"
    async with calling(falls) as again:
        assert await Phone(again, workers, "d3").open() > 0


async def test_each_worker_shows_what_it_has_counted_itself(workers: Workers) -> None:
    name = "hexhail_location_sessions_opened_total"
    before = workers.metric(name)
    async with calling(sorted(workers.children())[1]) as stub:
        await Phone(stub, workers, "d4").open()
    assert [after - earlier for after, earlier in zip(workers.metric(name), before, strict=True)] == [0.0, 1.0]


async def test_a_driver_whose_stream_comes_of_age_goes_on_at_whichever_worker(tmp_path: Path, valkey_url: str) -> None:
    """Given streams of half a second: each next one is newer, everything is acknowledged, and both workers have had some."""
    sent, dealt_with, sessions = 0, 0, list[int]()

    async with serving(tmp_path, valkey_url, HEXHAIL_MAX_STREAM_AGE_S="0.5") as workers:
        addresses = Addresses(workers.address, workers.address, workers.address)
        async with Channels(addresses) as channels, asyncio.timeout(PATIENCE_S):
            app = DriverApp(channels, CITY, "d5", workers.token(Role.DRIVER, "d5"))
            acknowledged = asyncio.Event()

            async def reports() -> AsyncIterator[FixReport]:
                nonlocal sent
                sequence = 0
                while True:
                    sequence, sent = sequence + 1, sent + 1
                    acknowledged.clear()
                    yield FixReport(sequence, 0, Place(*HERE))
                    await acknowledged.wait()

            while len(sessions) < 3 or not all(workers.metric("hexhail_location_sessions_opened_total")):
                async for answer in app.stream_fixes(reports()):
                    if isinstance(answer, SessionView):
                        sessions.append(answer.session_id)
                    elif isinstance(answer, FixAckView):
                        dealt_with += answer.accepted + sum(answer.drops.values())
                        acknowledged.set()
            await channels.counts.settled()
            assert sessions == sorted(set(sessions))
            assert dealt_with == sent
            assert channels.counts.ok == len(sessions)
            assert channels.counts.rpc_errors == {}


async def test_a_signal_ends_all_in_good_order_and_leaves_nothing_behind(tmp_path: Path, valkey_url: str) -> None:
    async with serving(tmp_path, valkey_url) as workers:
        children = workers.children()
        first, second = sorted(children)
        async with calling(first) as one, calling(second) as other:
            phones = [Phone(one, workers, "d6"), Phone(other, workers, "d7")]
            for phone in phones:
                await phone.open()
            workers.process.send_signal(signal.SIGTERM)
            for phone in phones:
                assert (await asyncio.wait_for(phone.call.read(), PATIENCE_S)).HasField("reconnect")
                await phone.call.done_writing()
                assert await asyncio.wait_for(phone.call.read(), PATIENCE_S) is grpc.aio.EOF
                assert await phone.call.code() is grpc.StatusCode.OK
        assert await asyncio.to_thread(workers.process.wait, PATIENCE_S) == 0
        assert not [child for child in children.values() if child.is_running()]
        assert not Path(first.removeprefix("unix:")).parent.exists()


async def test_a_whole_city_can_have_several_workers_of_location(tmp_path: Path, valkey_url: str, postgres_dsn: str) -> None:
    elsewhere = {f"HEXHAIL_{name}_ADDRESS": f"unix:{tmp_path}/{name.lower()}.sock" for name in ("MATCHING", "PRICING", "TRAFFIC")}
    words = ("up", "--city", CITY, "--location-workers", "2")
    process = begin(tmp_path, valkey_url, words, HEXHAIL_POSTGRES_DSN=postgres_dsn, **elsewhere)
    try:
        log = tmp_path / "out.log"
        await until(lambda: b"Hexhail is up" in log.read_bytes() or process.poll() is not None, "the city is up", READY_S)
        assert process.poll() is None, log.read_text()
        children = psutil.Process(process.pid).children()
        assert len(children) == 5  # two workers, matching, pricing, and the learner of traffic
        shown = [child.environ()["HEXHAIL_WORKER_ADDRESS"] for child in children]
        assert sorted(map(bool, shown)) == [False, False, False, True, True]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
        assert not [child for child in children if child.is_running()]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def test_a_killed_parent_takes_its_workers_with_it(tmp_path: Path, valkey_url: str) -> None:
    async with serving(tmp_path, valkey_url) as workers:
        children = list(workers.children().values())
        assert len(children) == 2
        workers.process.kill()
        await until(lambda: not [child for child in children if child.is_running()], "the workers are gone")


async def test_a_port_that_strangers_share_is_refused_with_one_line(tmp_path: Path, valkey_url: str) -> None:
    with closing(socket.socket()) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        process = begin(tmp_path, valkey_url, HEXHAIL_LOCATION_ADDRESS=address)
        assert await asyncio.to_thread(process.wait, READY_S) == 1
    (line,) = (tmp_path / "out.log").read_text().splitlines()
    assert line.startswith(f"hexhail: location cannot listen at {address}")


async def test_an_address_for_metrics_that_is_taken_is_one_line(tmp_path: Path, valkey_url: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = begin(tmp_path, valkey_url, ("serve", "location", "--city", CITY), HEXHAIL_METRICS_ADDRESS=address)
        assert await asyncio.to_thread(process.wait, READY_S) == 1
    (line,) = (tmp_path / "out.log").read_text().splitlines()
    assert line.startswith(f"hexhail: location: metrics cannot be served at {address}")
    assert "HEXHAIL_METRICS_ADDRESS" in line


async def test_workers_that_cannot_come_up_are_one_line_and_leave_nobody(tmp_path: Path) -> None:
    process = begin(tmp_path, f"unix://{tmp_path}/nobody.sock")
    assert await asyncio.to_thread(process.wait, READY_S) == 1
    (line,) = (tmp_path / "out.log").read_text().splitlines()
    assert line.startswith("hexhail: location-")
    assert "HEXHAIL_REDIS_URL" in line
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
