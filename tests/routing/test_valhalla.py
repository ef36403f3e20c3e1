"""What is asked of Valhalla, and what its replies mean: examples by hand, after docs/docs/api."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import geo
from routing.engine_params import ValhallaParams
from routing.engine_replies import AskForLess, EngineFault, Fault, Reply
from routing.valhalla import ValhallaDialect
from tests.routing.engines import encode

ZONE = "America/New_York"
VALHALLA = ValhallaDialect(ValhallaParams("http://127.0.0.1:8002", snap_limit_m=250.5), ZONE)
DEPARTING = ValhallaDialect(ValhallaParams("http://127.0.0.1:8002", departure=True), ZONE)
ORIGINS = np.array([[40.744014, -73.990508], [40.739735, -73.979713]])
DESTINATION = np.array([[40.752522, -73.985015]])
NEW_YEAR_MS = 1_357_016_400_000
"""Midnight in New York, 2013-01-01."""


def concise(**changes: object) -> dict[str, Any]:
    matrix = {"durations": [[301], [None]], "distances": [[1.234], [None]]}
    return {"sources_to_targets": matrix | changes, "units": "kilometers", "algorithm": "costmatrix"}


def pair(i: int, time: object, distance: object) -> dict[str, Any]:
    return {"from_index": i, "to_index": 0, "time": time, "distance": distance}


def verbose(rows: object) -> dict[str, Any]:
    return {"sources_to_targets": rows, "units": "kilometers", "sources": [], "targets": []}


def manoeuvre(begin: object, end: object, time: object) -> dict[str, Any]:
    return {"type": 1, "begin_shape_index": begin, "end_shape_index": end, "time": time, "length": 0.1}


LINE = [(1.0, 1.0), (1.001, 1.0), (1.002, 1.0), (1.005, 1.0)]
THREE = [manoeuvre(0, 1, 20), manoeuvre(1, 3, 60), manoeuvre(3, 3, 0)]


def trip(manoeuvres: object = THREE, **changes: object) -> dict[str, Any]:
    """Four points along a meridian, 0.001, 0.001 and 0.003 degrees apart."""
    leg = {"shape": encode(LINE), "summary": {"time": 80, "length": 0.5}, "maneuvers": manoeuvres} | changes
    return {"trip": {"status": 0, "units": "kilometers", "legs": [leg], "locations": []}}


def reply(document: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


def error(code: int) -> Reply:
    return reply({"error_code": code, "error": "x", "status_code": 400, "status": "Bad Request"}, 400)


def test_a_matrix_is_asked_concisely_in_kilometres_with_the_limit_as_cutoff() -> None:
    request = VALHALLA.ask_table(ORIGINS, DESTINATION, NEW_YEAR_MS)

    assert (request.method, request.target) == ("POST", "/sources_to_targets")
    assert json.loads(request.body) == {
        "sources": [
            {"lat": 40.744014, "lon": -73.990508, "search_cutoff": 251},
            {"lat": 40.739735, "lon": -73.979713, "search_cutoff": 251},
        ],
        "targets": [{"lat": 40.752522, "lon": -73.985015, "search_cutoff": 251}],
        "verbose": False,
        "costing": "auto",
        "units": "kilometers",
    }


def test_departure_is_told_in_local_time_where_the_city_says_so() -> None:
    for request in (DEPARTING.ask_table(ORIGINS, DESTINATION, NEW_YEAR_MS), DEPARTING.ask_way(ORIGINS, NEW_YEAR_MS)):
        assert json.loads(request.body)["date_time"] == {"type": 1, "value": "2013-01-01T00:00"}
    for request in (VALHALLA.ask_way(ORIGINS, NEW_YEAR_MS), DEPARTING.ask_table(ORIGINS, DESTINATION, None)):
        assert "date_time" not in json.loads(request.body)
    assert (VALHALLA.hears_departure, DEPARTING.hears_departure) == (False, True)


@pytest.mark.parametrize(
    "document",
    [
        concise(),
        verbose([[pair(0, 301, 1.234)], [pair(1, None, None)]]),
        verbose([pair(1, None, None), pair(0, 301, 1.234)]),
    ],
    ids=["concise", "verbose", "verbose and flat"],
)
def test_a_matrix_is_read_in_every_form(document: dict[str, Any]) -> None:
    read = VALHALLA.read_table(reply(document), ORIGINS, DESTINATION)

    np.testing.assert_array_equal(read.times_s, [[301], [np.inf]])
    np.testing.assert_allclose(read.distances_m, np.array([[1234], [np.inf]]))
    assert read.origin_gap_m is None


def test_a_matrix_without_any_path_is_all_inf_and_a_route_without_one_asks_for_less() -> None:
    read = VALHALLA.read_table(error(442), ORIGINS, DESTINATION)

    assert read.times_s.shape == read.distances_m.shape == (2, 1)
    assert np.isinf(read.times_s).all()
    assert np.isinf(read.distances_m).all()
    with pytest.raises(AskForLess):
        VALHALLA.read_way(error(442), ORIGINS)


@pytest.mark.parametrize("code", [170, 171, 441])
def test_errors_about_a_place_or_a_pair_ask_for_less(code: int) -> None:
    for read in (VALHALLA.read_table, lambda r, o, _: VALHALLA.read_way(r, o), lambda r, o, _: VALHALLA.read_gaps(r, o)):
        with pytest.raises(AskForLess, match=str(code)):
            read(error(code), ORIGINS, DESTINATION)


@pytest.mark.parametrize("code", [100, 125, 150, 154, 162, 430])
def test_errors_about_the_request_are_refusals_that_say_which(code: int) -> None:
    with pytest.raises(EngineFault) as caught:
        VALHALLA.read_table(error(code), ORIGINS, DESTINATION)

    assert (caught.value.fault, caught.value.detail) == (Fault.REFUSED, f"error_code {code}")


def test_a_place_is_as_far_off_as_its_nearest_edge() -> None:
    near = {"correlated_lat": 40.745014, "correlated_lon": -73.990508, "way_id": 1, "percent_along": 0.5}
    far = {**near, "correlated_lat": 40.754014}
    located = [{"edges": [far, near], "input_lat": 1}, {"edges": None, "nodes": None}]
    expected_m = geo.distance_m(geo.Place(40.744014, -73.990508), geo.Place(40.745014, -73.990508))

    for document in (located, {"locations": located}):
        np.testing.assert_allclose(VALHALLA.read_gaps(reply(document), ORIGINS).gap_m, [expected_m, np.inf])
    assert np.isinf(VALHALLA.read_gaps(reply([{"edges": []}, {}]), ORIGINS).gap_m).all()
    assert json.loads(VALHALLA.ask_gaps(ORIGINS).body)["locations"][0]["search_cutoff"] == 251


def test_a_routes_time_is_dealt_out_by_manoeuvre_and_within_by_length() -> None:
    way = VALHALLA.read_way(reply(trip()), ORIGINS)

    np.testing.assert_allclose(way.places, LINE, atol=1e-6)
    np.testing.assert_allclose(way.times_s, [20, 15, 45], rtol=1e-3)
    np.testing.assert_allclose(way.lengths_m, [100, 100, 300], rtol=1e-3)
    assert way.gap_m is None


def test_without_manoeuvres_a_routes_time_is_dealt_out_by_length() -> None:
    np.testing.assert_allclose(VALHALLA.read_way(reply(trip([])), ORIGINS).times_s, [16, 16, 48], rtol=1e-3)


@pytest.mark.parametrize(
    "document",
    [
        concise(durations=[[301]]),
        concise(durations=[[301], [1]]),
        concise(distances=[[-1], [None]]),
        concise(durations=None),
        {**concise(), "units": "miles"},
        {"sources_to_targets": concise()["sources_to_targets"]},
        verbose([[pair(0, 301, 1.2)]]),
        verbose([[pair(0, 301, 1.2)], [pair(0, 301, 1.2)]]),
        verbose([[pair(0, 301, 1.2)], [{"from_index": 1, "to_index": 0}]]),
        verbose([[pair(0, 301, 1.2)], [7]]),
        verbose(None),
        [],
        None,
    ],
)
def test_a_matrix_of_another_shape_is_unreadable(document: object) -> None:
    with pytest.raises(EngineFault) as caught:
        VALHALLA.read_table(reply(document), ORIGINS, DESTINATION)

    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize(
    "document",
    [
        trip([manoeuvre(0, 1, 20), manoeuvre(2, 3, 60)]),
        trip([manoeuvre(0, 4, 20)]),
        trip([manoeuvre(0, 2, 20)]),
        trip([manoeuvre(0, -1, 20)]),
        trip([manoeuvre(0, 3, None)]),
        trip(7),
        trip(shape="_"),
        trip(shape=""),
        trip(summary={}),
        {"trip": {"units": "miles", "legs": []}},
        {"trip": {"units": "kilometers", "legs": []}},
        {"trip": None},
    ],
)
def test_a_route_of_another_shape_is_unreadable(document: object) -> None:
    with pytest.raises(EngineFault) as caught:
        VALHALLA.read_way(reply(document), ORIGINS)

    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize("document", [[{"edges": []}], [7, 7], {}, [{"edges": [7]}] * 2, [{"edges": [{}]}] * 2])
def test_places_of_another_shape_are_unreadable(document: object) -> None:
    with pytest.raises(EngineFault) as caught:
        VALHALLA.read_gaps(reply(document), ORIGINS)

    assert caught.value.fault is Fault.UNREADABLE


WORDS = ["sources_to_targets", "units", "durations", "distances", "trip", "legs", "shape", "summary", "time", "length"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["kilometers", "??", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "error_code", "edges"]), inner),
    max_leaves=20,
)


@given(json_values, st.sampled_from([200, 400]))
def test_whatever_is_said_is_an_answer_or_a_fault(document: object, status: int) -> None:
    said = reply(document, status)
    for read in (VALHALLA.read_table, lambda r, o, _: VALHALLA.read_way(r, o), lambda r, o, _: VALHALLA.read_gaps(r, o)):
        try:
            read(said, ORIGINS, DESTINATION)
        except (EngineFault, AskForLess):
            continue
