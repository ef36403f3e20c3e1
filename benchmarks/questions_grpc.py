"""A caller who asks at a steady rate, whether or not earlier questions are answered: how long does each answer take?"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from benchmarks.calls_grpc import found_of, nearby_request
from benchmarks.sending_grpc import ANSWER_S, CHANNEL_OPTIONS, bearer
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc

if TYPE_CHECKING:
    from benchmarks.accounting import Found
    from hexhail.kernel.units import Floats


@dataclass(frozen=True, slots=True)
class QuestionLoad:
    """What is to be asked.

    places : float64[n, 2], lat and lng in degrees, one question each
    count : how many drivers each asks for
    per_s : questions a second, evenly in time
    """

    address: str
    city_id: str
    token: str
    places: Floats
    count: int
    per_s: float


@dataclass(frozen=True, slots=True)
class QuestionRun:
    """What came of it.

    latency_ms : float64[n], from when each question was due to its answer; what delays the asking counts too
    began_s, ended_s : from the first question to the last answer, by the machine's monotonic clock
    """

    latency_ms: Floats
    answers: tuple[Found, ...]
    began_s: float
    ended_s: float


def run_questions(load: QuestionLoad) -> QuestionRun:
    """Asks, and waits for all answers. Raises grpc.RpcError for the first that fails."""
    requests = [nearby_request(load.city_id, lat, lng, load.count) for lat, lng in load.places.tolist()]
    gc.disable()  # a look for garbage among thousands of calls would be taken for a slow answer
    how = {"metadata": bearer(load.token), "timeout": ANSWER_S}
    due_s, done_s = np.zeros(len(requests)), np.zeros(len(requests))
    unanswered = threading.Semaphore(0)
    with grpc.insecure_channel(load.address, options=CHANNEL_OPTIONS) as channel:
        stub: Any = rpc.LocationServiceStub(channel)
        stub.FindNearbyDrivers(requests[0], **how)  # connects

        def ask(row: int) -> Any:
            def answered(_: object) -> None:
                done_s[row] = time.perf_counter()
                unanswered.release()

            call = stub.FindNearbyDrivers.future(requests[row], **how)
            call.add_done_callback(answered)
            return call

        began_s = time.perf_counter()
        calls = []
        for row in range(len(requests)):
            due_s[row] = began_s + row / load.per_s
            time.sleep(max(0.0, due_s[row] - time.perf_counter()))
            calls.append(ask(row))
        for _ in requests:
            unanswered.acquire()
        answers = tuple(found_of(call.result()) for call in calls)
    return QuestionRun((done_s - due_s) * 1000, answers, began_s, float(done_s.max()))
