"""What became of fixes can be read by Prometheus, reason by reason, from a service as it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.cities import Cities
from hexhail.kernel.clock import ManualClock
from hexhail.rpc.exporter import Exporter
from hexhail.rpc.server import Shell
from hexhail.rpc.tokens import Role, mint_token
from location.__main__ import running
from location.model import DropReason
from tests.location.world import CENTRE, CITY, KEY, NOON_MS, fix_message, gridport

if TYPE_CHECKING:
    from redis.asyncio import Redis

BAD_FIXES = {
    DropReason.OUT_OF_RANGE: fix_message(2, 91.0, -74.0),
    DropReason.OUTSIDE_CITY: fix_message(2, 50.0, -74.0),
    DropReason.INACCURATE: fix_message(2, *CENTRE, accuracy_m=9_000.0),
    DropReason.NOT_NEWER: fix_message(1, *CENTRE),
}


def auth(role: Role, subject: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {mint_token(KEY, role, subject)}"),)


def shown(exporter: Exporter) -> dict[str, dict[str, float]]:
    """Name -> what a reading is told apart by (but for city and service) -> value."""
    page: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(generate_latest(exporter.registry).decode()):
        for sample in family.samples:
            if sample.labels.get("city", CITY) == CITY:
                apart = " ".join(value for label, value in sample.labels.items() if label not in {"city", "service"})
                page.setdefault(sample.name, {})[apart] = sample.value
    return page


async def test_each_dropped_fix_is_counted_under_its_reason(valkey: Redis, valkey_url: str) -> None:
    exporter = Exporter()
    serving = running(
        Cities([gridport()]),
        clock=ManualClock(NOON_MS),
        token_key=KEY,
        listen="127.0.0.1:0",
        redis_url=valkey_url,
        shell=Shell(exporter=exporter),
    )
    async with serving as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = rpc.LocationServiceStub(channel)

        async def report(driver_id: str, fix: fix_pb2.Fix, session_id: int = 0) -> pb.ReportFixesResponse:
            request = pb.ReportFixesRequest(city_id=CITY, session_id=session_id, fixes=[fix])
            reply: pb.ReportFixesResponse = await stub.ReportFixes(request, metadata=auth(Role.DRIVER, driver_id))
            return reply

        before = shown(exporter)
        assert before["hexhail_location_fixes_dropped_total"] == {reason.name: 0.0 for reason in DropReason}
        for reason, bad in BAD_FIXES.items():
            good = await report(reason.name.lower(), fix_message(1, *CENTRE))
            assert (await report(reason.name.lower(), bad, good.session_id)).ack.accepted == 0
        call = stub.StreamFleetFixes(metadata=auth(Role.FLEET, "acme"))
        await call.write(pb.StreamFleetFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
        columns = fix_pb2.FixColumns(
            new_driver_ids=["other.d1"],
            driver_index=[0],
            sequence=[1],
            device_time_ms=[0],
            lat_e7=[405_000_000],
            lng_e7=[-740_000_000],
        )
        await call.write(pb.StreamFleetFixesRequest(columns=columns))
        await call.done_writing()
        answers = [answer async for answer in call]
        assert [drop.count for answer in answers for drop in answer.ack.drops] == [1]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ReportFixes(pb.ReportFixesRequest(city_id="atlantis"), metadata=auth(Role.DRIVER, "d1"))

        after = shown(exporter)
        counted = (*BAD_FIXES, DropReason.NOT_A_MEMBER)
        assert after["hexhail_location_fixes_dropped_total"] == {r.name: float(r in counted) for r in DropReason}
        assert after["hexhail_location_fixes_accepted_total"] == {"": float(len(BAD_FIXES))}
        assert after["hexhail_location_sessions_opened_total"] == {"": float(len(BAD_FIXES) + 1)}
        assert after["hexhail_rpc_calls_total"] == {
            "OK ReportFixes": 2.0 * len(BAD_FIXES),
            "INVALID_ARGUMENT ReportFixes": 1.0,
            "OK StreamFleetFixes": 1.0,
        }
        assert set(after["hexhail_rpc_streams_open"].values()) == {0.0}
        assert set(after["hexhail_rpc_calls_under_way"].values()) == {0.0}
