"""What is asked of OSRM, and what its replies mean: examples by hand, after docs/http.md."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.engine_params import OsrmParams
from routing.engine_replies import AskForLess, EngineFault, Fault, Reply, Request
from routing.osrm import OsrmDialect

OSRM = OsrmDialect(OsrmParams("http://127.0.0.1:5000"))
ORIGINS = np.array([[52.517037, 13.388860], [52.529407, 13.397634]])
DESTINATION = np.array([[52.523219, 13.428555]])
ENDS = ORIGINS


def waypoint(distance: object = 4.152629) -> dict[str, Any]:
    return {"hint": "KSoK", "distance": distance, "name": "Friedrichstraße", "location": [13.388799, 52.517033]}


def table(**changes: object) -> dict[str, Any]:
    """A table of two origins and one destination, the second without a way."""
    whole: dict[str, Any] = {
        "code": "Ok",
        "data_version": "2017-11-17T21:43:02Z",
        "durations": [[192.6], [None]],
        "distances": [[1886.8], [None]],
        "sources": [waypoint(), waypoint(0)],
        "destinations": [waypoint(300.5)],
    }
    return whole | changes


def route(**changes: object) -> dict[str, Any]:
    """A route of one leg and three steps; its annotations leave out 10 s of turns."""
    annotation = {"duration": [15, 40, 15], "distance": [5, 10, 5]}
    leg = {"distance": 20.0, "duration": 80.0, "steps": [], "annotation": annotation}
    whole: dict[str, Any] = {
        "code": "Ok",
        "routes": [{"distance": 20.0, "duration": 80.0, "geometry": "_c`|@_c`|@??_pR?o}@_pR", "legs": [leg | changes]}],
        "waypoints": [waypoint(1.5), waypoint(2.5)],
    }
    return whole


def reply(document: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


def test_a_table_is_asked_with_indexes_of_sources_and_destinations() -> None:
    assert OSRM.ask_table(ORIGINS, DESTINATION, 0) == Request(
        "GET",
        "/table/v1/driving/13.388860,52.517037;13.397634,52.529407;13.428555,52.523219"
        "?sources=0;1&destinations=2&annotations=duration,distance&generate_hints=false",
    )


def test_a_table_has_inf_for_null_and_tells_how_far_each_coordinate_was_moved() -> None:
    read = OSRM.read_table(reply(table()), ORIGINS, DESTINATION)

    np.testing.assert_array_equal(read.times_s, [[192.6], [np.inf]])
    np.testing.assert_array_equal(read.distances_m, [[1886.8], [np.inf]])
    np.testing.assert_array_equal(read.origin_gap_m, [4.152629, 0])
    np.testing.assert_array_equal(read.destination_gap_m, [300.5])
    assert read.data == "2017-11-17T21:43:02Z"


def test_the_data_version_may_be_missing() -> None:
    document = table()
    del document["data_version"]

    assert OSRM.read_table(reply(document), ORIGINS, DESTINATION).data == ""


def test_how_far_one_place_is_asked_of_nearest_and_of_several_of_a_table() -> None:
    one, two = OSRM.ask_gaps(DESTINATION), OSRM.ask_gaps(ORIGINS)

    assert one.target == "/nearest/v1/driving/13.428555,52.523219?number=1&generate_hints=false"
    assert two.target == (
        "/table/v1/driving/13.388860,52.517037;13.397634,52.529407?destinations=0&annotations=duration&generate_hints=false"
    )
    nearest = {"code": "Ok", "waypoints": [waypoint()]}
    np.testing.assert_array_equal(OSRM.read_gaps(reply(nearest), DESTINATION).gap_m, [4.152629])
    np.testing.assert_array_equal(OSRM.read_gaps(reply(table()), ORIGINS).gap_m, [4.152629, 0])


def test_a_route_is_asked_with_its_whole_geometry() -> None:
    assert OSRM.ask_way(ENDS, 0).target == (
        "/route/v1/driving/13.388860,52.517037;13.397634,52.529407"
        "?overview=full&geometries=polyline6&annotations=duration,distance&steps=false&generate_hints=false"
    )


def test_a_routes_steps_make_up_its_duration_turns_included() -> None:
    way = OSRM.read_way(reply(route()), ENDS)

    np.testing.assert_allclose(way.places, [[1.0, 1.0], [1.0, 1.0], [1.01, 1.0], [1.011, 1.01]], atol=1e-6)
    np.testing.assert_allclose(way.times_s, np.array([15, 40, 15]) * 80 / 70)
    np.testing.assert_allclose(way.lengths_m, [5, 10, 5])
    np.testing.assert_array_equal(way.gap_m, [1.5, 2.5])


@pytest.mark.parametrize("code", ["NoSegment", "NoTable", "NoRoute"])
def test_codes_about_a_place_or_a_pair_ask_for_less(code: str) -> None:
    refused = reply({"code": code, "message": "x"}, 400)
    for read in (OSRM.read_table, lambda r, o, _: OSRM.read_way(r, o), lambda r, o, _: OSRM.read_gaps(r, o)):
        with pytest.raises(AskForLess, match=code):
            read(refused, ORIGINS, DESTINATION)


@pytest.mark.parametrize("code", ["TooBig", "InvalidQuery", "InvalidOptions", "InvalidUrl", "InvalidValue", "NotImplemented"])
def test_codes_about_the_request_are_refusals_that_say_which(code: str) -> None:
    with pytest.raises(EngineFault) as caught:
        OSRM.read_table(reply({"code": code, "message": "x"}, 400), ORIGINS, DESTINATION)

    assert (caught.value.fault, caught.value.detail) == (Fault.REFUSED, code)


@pytest.mark.parametrize(
    "document",
    [
        table(durations=[[1.0]]),
        table(durations=[[1.0], [1.0, 2.0]]),
        table(durations=None),
        table(durations=[["1.0"], [None]]),
        table(durations=[[True], [None]]),
        table(durations=[[-0.1], [None]]),
        table(durations=[[10**400], [None]]),
        table(durations=[[1.0], [1.0]]),
        table(distances="x"),
        table(sources=[waypoint()]),
        table(sources=[waypoint(), waypoint(None)]),
        table(sources=[waypoint(), waypoint(-1)]),
        table(sources=[waypoint(), {"location": [13.0, 52.0]}]),
        table(destinations=[None]),
        table(code=None),
        table(code=["Ok"]),
        ["Ok"],
        None,
        7,
    ],
)
def test_a_table_of_another_shape_is_unreadable(document: object) -> None:
    with pytest.raises(EngineFault) as caught:
        OSRM.read_table(reply(document), ORIGINS, DESTINATION)

    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize(
    "document",
    [
        route(annotation={"duration": [15, 40], "distance": [5, 10, 5]}),
        route(annotation=None),
        route(duration=None),
        route(duration=-1),
        {**route(), "routes": []},
        {**route(), "routes": [{"geometry": "?", "legs": []}]},
        {**route(), "routes": [{"geometry": "_", "legs": route()["routes"][0]["legs"]}]},
        {**route(), "routes": [{"geometry": "", "legs": route()["routes"][0]["legs"]}]},
        {**route(), "waypoints": []},
    ],
)
def test_a_route_of_another_shape_is_unreadable(document: object) -> None:
    with pytest.raises(EngineFault) as caught:
        OSRM.read_way(reply(document), ENDS)

    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"code": "Ok"', b'{"code": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(EngineFault) as caught:
        OSRM.read_table(Reply(200, body), ORIGINS, DESTINATION)

    assert caught.value.fault is Fault.UNREADABLE


def test_ok_under_an_http_error_is_unreadable() -> None:
    with pytest.raises(EngineFault, match="HTTP 400"):
        OSRM.read_table(reply(table(), 400), ORIGINS, DESTINATION)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["Ok", "NoRoute", "?", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(table()) + list(route())), inner),
    max_leaves=20,
)


@given(json_values, st.sampled_from([200, 400]))
def test_whatever_is_said_is_an_answer_or_a_fault(document: object, status: int) -> None:
    """No other exception, and no table of another shape."""
    said = reply(document, status)
    for read in (OSRM.read_table, lambda r, o, _: OSRM.read_way(r, o), lambda r, o, _: OSRM.read_gaps(r, o)):
        try:
            read(said, ORIGINS, DESTINATION)
        except (EngineFault, AskForLess):
            continue


def test_the_version_names_address_profile_and_what_is_added() -> None:
    versions = {
        OsrmDialect(params).version
        for params in (
            OsrmParams("http://a"),
            OsrmParams("http://b"),
            OsrmParams("http://a", profile="car"),
            OsrmParams("http://a", snap_limit_m=50),
            OsrmParams("http://a", time_factor=2.0),
            OsrmParams("http://a", deadline_s=3.0),
        )
    }

    assert len(versions) == 5
    assert all(version.startswith("osrm-") for version in versions)
