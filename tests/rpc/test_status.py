"""Reasons and status codes: one table, the contract's names, and nothing lost on the way."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from hexhail.api.common.v1 import error_reason_pb2
from hexhail.kernel.errors import DomainError, FieldViolation, Reason, invalid
from hexhail.rpc.status import CODE_OF, details_in, error_of, status_details

PROTO = Path(__file__).parents[2] / "proto" / "hexhail" / "api" / "common" / "v1" / "error_reason.proto"


def test_every_reason_has_a_code() -> None:
    assert set(CODE_OF) == set(Reason)


def test_the_contract_names_the_same_reasons() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - no dict
    assert names - {"UNSPECIFIED"} == {reason.value for reason in Reason}


def test_the_contract_says_the_same_code_of_each_reason() -> None:
    """The comment before each reason begins with the code that it travels under."""
    said = re.findall(r"// ([A-Z_]+)\.[^\n]*\n(?:\s*//[^\n]*\n)*\s*ERROR_REASON_([A-Z_]+) =", PROTO.read_text())
    assert {Reason(reason): code for code, reason in said} == {reason: code.name for reason, code in CODE_OF.items()}


@given(
    st.sampled_from(list(Reason)),
    st.text(max_size=30),
    st.dictionaries(st.sampled_from(["ride_id", "state", "event", "method"]), st.text(max_size=20)),
    st.lists(st.tuples(st.text(max_size=10), st.text(max_size=10)), max_size=3),
)
def test_an_error_comes_back_as_it_went(
    reason: Reason, message: str, metadata: dict[str, str], violations: list[tuple[str, str]]
) -> None:
    sent = DomainError(reason, message, violations=tuple(FieldViolation(*v) for v in violations), **metadata)
    back = error_of(status_details(sent), CODE_OF[reason], sent.message)
    assert back is not None
    assert (back.reason, back.message, back.metadata) == (reason, sent.message, sent.metadata)
    assert back.violations == sent.violations


def test_the_details_are_the_standards_own() -> None:
    status = status_pb2.Status()
    status.ParseFromString(status_details(invalid("stops[0].position", "is missing")))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "hexhail")
    assert [(v.field, v.description) for v in bad.field_violations] == [("stops[0].position", "is missing")]
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("details", [None, b"", b"\xff\xff\xff", b"\x08\x03", status_pb2.Status(code=3).SerializeToString()])
def test_a_status_that_is_none_of_ours_is_no_error_of_ours(details: bytes | None) -> None:
    assert error_of(details, grpc.StatusCode.INVALID_ARGUMENT, "") is None


def test_a_reason_under_another_code_than_its_own_is_not_believed() -> None:
    details = status_details(DomainError(Reason.ALREADY_TAKEN))
    assert error_of(details, grpc.StatusCode.UNAVAILABLE, "") is None


def test_the_details_are_found_among_other_metadata() -> None:
    assert details_in((("x", "y"), ("grpc-status-details-bin", b"d"))) == b"d"
    assert details_in(()) is None
    assert details_in(None) is None
