"""Routing engines of a few junctions that speak as OSRM's and Valhalla's documents say, and a server on the loopback for them."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from hexhail.kernel.geo import Place, distance_m
from routing.engine_replies import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

JUNCTIONS = ((40.70, -74.00), (40.71, -74.00), (40.71, -73.98), (40.75, -73.95))
"""The last is an island: one can neither reach nor leave it."""
TIMES_S = ((0.0, 130.0, 300.5, None), (110.0, 0.0, 160.2, None), (310.0, 170.0, 0.0, None), (None, None, None, 0.0))
LENGTHS_M = ((0.0, 1112.0, 2800.0, None), (1150.0, 0.0, 1690.0, None), (2810.0, 1700.0, 0.0, None), (None, None, None, 0.0))
HALF_WAY = 0.25
"""How much of a way lies before its bend; a quarter, so that it is not the middle."""


def nearest(lat: float, lng: float) -> tuple[int, float]:
    """The nearest junction, and how far it is."""
    gaps = [distance_m(Place(lat, lng), Place(*junction)) for junction in JUNCTIONS]
    return int(np.argmin(gaps)), min(gaps)


def encode(places: Sequence[tuple[float, float]], decimals: int = 6) -> str:
    """A line as an encoded polyline, by the steps that Google's document lists."""
    text, last = "", (0, 0)
    for lat, lng in places:
        now = (round(lat * 10**decimals), round(lng * 10**decimals))
        for after, before in zip(now, last, strict=True):
            bits = (after - before) << 1
            bits = ~bits if after < before else bits
            while bits >= 0x20:
                text += chr((0x20 | bits & 0x1F) + 63)
                bits >>= 5
            text += chr(bits + 63)
        last = now
    return text


def bent(i: int, j: int) -> list[tuple[float, float]]:
    """The geometry from one junction to another: over a corner."""
    return [JUNCTIONS[i], (JUNCTIONS[j][0], JUNCTIONS[i][1]), JUNCTIONS[j]]


@dataclass
class FakeOsrm:
    """As docs/http.md has it. `data_version` may be emptied, `no_segment` names junctions whose places it cannot snap."""

    max_table_size: int = 100
    data_version: str = ""
    no_segment: frozenset[int] = frozenset()
    asked: list[str] = field(default_factory=list)

    def reply(self, request: Request) -> Reply:
        self.asked.append(request.target)
        parts = urlsplit(request.target)
        _, service, version, profile, path = parts.path.split("/")
        assert (request.method, version, profile) == ("GET", "v1", "driving")
        places = [(float(lat), float(lng)) for lng, lat in (pair.split(",") for pair in path.split(";"))]
        options = dict(parse_qsl(parts.query.replace(";", "%3B"), strict_parsing=True))
        code, answer = getattr(self, f"_{service}")(places, options)
        document = {"code": code, **answer, **({"data_version": self.data_version} if self.data_version else {})}
        return Reply(200 if code == "Ok" else 400, json.dumps(document).encode())

    def _waypoint(self, place: tuple[float, float]) -> dict[str, Any]:
        node, gap_m = nearest(*place)
        lat, lng = JUNCTIONS[node]
        return {"hint": "x", "distance": gap_m, "name": "", "location": [lng, lat]}

    def _nearest(self, places: list[tuple[float, float]], options: dict[str, str]) -> tuple[str, dict[str, Any]]:
        if nearest(*places[0])[0] in self.no_segment:
            return "NoSegment", {"message": "Could not find a matching segment for coordinate"}
        return "Ok", {"waypoints": [self._waypoint(places[0])]}

    def _table(self, places: list[tuple[float, float]], options: dict[str, str]) -> tuple[str, dict[str, Any]]:
        everything = range(len(places))
        froms, tos = (
            [int(i) for i in options[key].split(";")] if key in options else list(everything)
            for key in ("sources", "destinations")
        )
        if len(froms) * len(tos) > self.max_table_size**2:
            return "TooBig", {"message": "Too many table coordinates"}
        nodes = [nearest(*place)[0] for place in places]
        if self.no_segment & set(nodes):
            return "NoSegment", {"message": "Could not find a matching segment for coordinate"}
        tables = {"duration": ("durations", TIMES_S), "distance": ("distances", LENGTHS_M)}
        wanted = [tables[name] for name in options.get("annotations", "duration").split(",")]
        return "Ok", {
            **{key: [[table[nodes[i]][nodes[j]] for j in tos] for i in froms] for key, table in wanted},
            "sources": [self._waypoint(places[i]) for i in froms],
            "destinations": [self._waypoint(places[j]) for j in tos],
        }

    def _route(self, places: list[tuple[float, float]], options: dict[str, str]) -> tuple[str, dict[str, Any]]:
        assert options["geometries"] == "polyline6"
        assert (options["overview"], options["annotations"]) == ("full", "duration,distance")
        i, j = (nearest(*place)[0] for place in places)
        if {i, j} & self.no_segment:
            return "NoSegment", {"message": "Could not find a matching segment for coordinate"}
        time_s, length_m = TIMES_S[i][j], LENGTHS_M[i][j]
        if time_s is None or length_m is None:
            return "NoRoute", {"message": "Impossible route between points"}
        driving_s = max(time_s - 10.0, 0.0)  # annotations leave out the time of turns
        annotation = {
            "duration": [HALF_WAY * driving_s, (1 - HALF_WAY) * driving_s],
            "distance": [HALF_WAY * length_m, (1 - HALF_WAY) * length_m],
        }
        leg = {"duration": time_s, "distance": length_m, "steps": [], "annotation": annotation}
        route = {"duration": time_s, "distance": length_m, "geometry": encode(bent(i, j)), "legs": [leg]}
        return "Ok", {"routes": [route], "waypoints": [self._waypoint(place) for place in places]}


@dataclass
class FakeValhalla:
    """As docs/docs/api has it. `verbose_only` is a version that knows no concise matrix; `refuses_islands` one that refuses a
    request as soon as its places do not all hang together (error 170).
    """

    max_pairs: int = 2500
    verbose_only: bool = False
    refuses_islands: bool = False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def reply(self, request: Request) -> Reply:
        question = json.loads(request.body)
        self.asked.append((request.target, question))
        assert (request.method, question["costing"], question["units"]) == ("POST", "auto", "kilometers")
        answer = {"/locate": self._locate, "/sources_to_targets": self._matrix, "/route": self._route}[request.target](question)
        if isinstance(answer, int):
            return Reply(400, json.dumps({"error_code": answer, "error": "x", "status_code": 400, "status": "Bad"}).encode())
        return Reply(200, json.dumps(answer).encode())

    def _node(self, location: dict[str, Any]) -> int | None:
        node, gap_m = nearest(location["lat"], location["lon"])
        return node if gap_m <= location["search_cutoff"] else None

    def _locate(self, question: dict[str, Any]) -> list[dict[str, Any]] | int:
        located = []
        for location in question["locations"]:
            node, at = self._node(location), {"input_lat": location["lat"], "input_lon": location["lon"]}
            if node is None:
                located.append({**at, "edges": None, "nodes": None})
                continue
            lat, lng = JUNCTIONS[node]
            away = {"way_id": 1, "correlated_lat": lat + 0.01, "correlated_lon": lng, "percent_along": 1.0}
            edge = {"way_id": 2, "correlated_lat": lat, "correlated_lon": lng, "percent_along": 0.0}
            located.append({**at, "edges": [away, edge], "nodes": [{"lat": lat, "lon": lng}]})
        return located

    def _matrix(self, question: dict[str, Any]) -> dict[str, Any] | int:
        froms, tos = ([self._node(one) for one in question[side]] for side in ("sources", "targets"))
        if len(froms) * len(tos) > self.max_pairs:
            return 150
        if "date_time" in question and len(froms) > len(tos):
            return 160
        if None in froms or None in tos:
            return 171
        if self.refuses_islands and len({node == 3 for node in froms + tos}) > 1:
            return 170
        times = [[TIMES_S[i][j] for j in tos] for i in froms]  # type: ignore[index]
        km = [[None if (m := LENGTHS_M[i][j]) is None else m / 1000 for j in tos] for i in froms]  # type: ignore[index]
        if all(time is None for row in times for time in row):
            return 442
        about = {"units": "kilometers", "algorithm": "costmatrix"}
        if not self.verbose_only and question["verbose"] is False:
            return {"sources_to_targets": {"durations": times, "distances": km}, **about}
        rows = [
            [{"from_index": i, "to_index": j, "time": times[i][j], "distance": km[i][j]} for j in range(len(tos))]
            for i in range(len(froms))
        ]
        return {"sources_to_targets": rows, "sources": [question["sources"]], "targets": [question["targets"]], **about}

    def _route(self, question: dict[str, Any]) -> dict[str, Any] | int:
        i, j = (self._node(one) for one in question["locations"])
        if i is None or j is None:
            return 171
        time_s, length_m = TIMES_S[i][j], LENGTHS_M[i][j]
        if time_s is None or length_m is None:
            return 442
        manoeuvres = [
            {"begin_shape_index": 0, "end_shape_index": 1, "time": HALF_WAY * time_s, "length": 1.0},
            {"begin_shape_index": 1, "end_shape_index": 2, "time": (1 - HALF_WAY) * time_s, "length": 1.0},
            {"begin_shape_index": 2, "end_shape_index": 2, "time": 0, "length": 0.0},
        ]
        summary = {"time": time_s, "length": length_m / 1000}
        leg = {"shape": encode(bent(i, j)), "summary": summary, "maneuvers": manoeuvres}
        return {"trip": {"status": 0, "units": "kilometers", "legs": [leg], "summary": summary, "locations": []}}


@dataclass
class Served:
    """An engine behind HTTP. `trick`, where there is one, answers in the engine's place.

    asked : set as soon as a request has come; `released` lets those go on that a trick holds
    requests : how many came
    """

    url: str
    trick: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    requests: int = 0

    def silence(self, handler: BaseHTTPRequestHandler) -> None:
        """A trick: says nothing until released."""
        self.released.wait()
        handler.close_connection = True

    def dribble(self, handler: BaseHTTPRequestHandler) -> None:
        """A trick: one header after the other, and no end."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.released.wait(0.01):
            try:
                handler.wfile.write(b"x-more: to come\r\n")
            except OSError:
                break
        handler.close_connection = True


def raw(text: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A trick: exactly these bytes, and the end of the connection."""

    def say(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return say


def plain(status: int, body: bytes = b"{}", *headers: tuple[str, str]) -> Callable[[BaseHTTPRequestHandler], None]:
    """A trick: a whole reply of this status and body."""

    def say(handler: BaseHTTPRequestHandler) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
        handler.wfile.write("\r\n".join([*lines, "", ""]).encode() + body)

    return say


@contextmanager
def served(engine: FakeOsrm | FakeValhalla) -> Iterator[Served]:
    """The engine on a port of the loopback, for the time of the block."""
    state = Served("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            state.requests += 1
            state.asked.set()
            if state.trick is not None:
                state.trick(self)
                return
            reply = engine.reply(Request(self.command, self.path, body))
            plain(reply.status, reply.body)(self)

        do_GET = do_POST = _handle  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port of the loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
