"""Who is calling: tokens that are believed, and those that are not; and the keys that they are signed with."""

from __future__ import annotations

import base64
import datetime as dt
import json
import multiprocessing
import stat
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.keys import KEY_BYTES, load_or_make_key
from hexhail.rpc.tokens import AUDIENCE, Principal, Role, mint_token, verify_token

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims, but for what is changed; None takes one away."""
    now = dt.datetime.now(dt.UTC)
    good = {"sub": "r1", "role": "rider", "aud": AUDIENCE, "iat": now, "exp": now + dt.timedelta(hours=1)}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def refused(token: str) -> Reason:
    with pytest.raises(DomainError) as caught:
        verify_token(KEY, token)
    return caught.value.reason


@pytest.mark.parametrize("role", list(Role))
def test_a_token_speaks_for_one_subject_in_one_role(role: Role) -> None:
    caller = verify_token(KEY, mint_token(KEY, role, "acme.d17"))
    assert caller == Principal(role, "acme.d17")
    assert str(caller) == f"{role}/acme.d17"


def test_an_expired_token_is_told_so() -> None:
    assert refused(mint_token(KEY, Role.RIDER, "r1", -1)) is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another"},
        {"aud": None},
        {"role": "admin"},
        {"role": None},
        {"role": ["rider"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "x" * 65},
        {"exp": None},
        {"iat": dt.datetime(9999, 1, 1, tzinfo=dt.UTC)},
    ],
    ids=str,
)
def test_a_token_that_says_too_little_or_too_much_is_not_believed(wrong: dict[str, Any]) -> None:
    assert refused(jwt.encode(claims(**wrong), KEY, algorithm="HS256")) is Reason.TOKEN_INVALID


def test_a_token_of_another_key_or_method_is_not_believed() -> None:
    assert refused(mint_token(b"x" * 32, Role.OPERATOR, "o1")) is Reason.TOKEN_INVALID
    assert refused(jwt.encode(claims(), KEY * 2, algorithm="HS512")) is Reason.TOKEN_INVALID
    assert refused(jwt.encode(claims(), None, algorithm="none")) is Reason.TOKEN_INVALID


def test_a_token_altered_by_one_letter_is_not_believed() -> None:
    head, body, signature = mint_token(KEY, Role.RIDER, "r1").split(".")
    table = json.loads(base64.urlsafe_b64decode(body + "=="))
    promoted = base64.urlsafe_b64encode(json.dumps({**table, "role": "operator"}).encode()).decode().rstrip("=")
    assert refused(f"{head}.{promoted}.{signature}") is Reason.TOKEN_INVALID
    for token in ("", ".", "a.b.c", "é", head):
        assert refused(token) is Reason.TOKEN_INVALID


def test_no_token_is_made_for_what_is_no_id() -> None:
    with pytest.raises(DomainError):
        mint_token(KEY, Role.RIDER, "a b")


def test_a_driver_reports_for_itself_and_a_fleet_for_its_members() -> None:
    assert Principal(Role.DRIVER, "acme.d1").may_report_for("acme.d1")
    assert not Principal(Role.DRIVER, "acme.d1").may_report_for("acme.d2")
    assert Principal(Role.FLEET, "acme").may_report_for("acme.d2")
    assert not Principal(Role.FLEET, "acme").may_report_for("acme2.d2")
    assert not Principal(Role.FLEET, "acme").may_report_for("acme")
    assert not Principal(Role.OPERATOR, "acme.d1").may_report_for("acme.d1")


def test_a_key_is_made_once_and_read_ever_after(tmp_path: Path) -> None:
    key = load_or_make_key(tmp_path, "tokens")
    assert len(key) == KEY_BYTES
    assert load_or_make_key(tmp_path, "tokens") == key
    assert load_or_make_key(tmp_path, "quotes") != key


def test_a_key_is_its_owners_alone(tmp_path: Path) -> None:
    load_or_make_key(tmp_path, "tokens")
    (file,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        keys = list(pool.map(load_or_make_key, [tmp_path] * 8, ["tokens"] * 8))
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["tokens.key"]


@pytest.mark.parametrize("text", ["", "not hexadecimal", "ab", "ab" * 33])
def test_a_file_that_is_no_key_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "tokens.key").write_text(text)
    with pytest.raises(ValueError, match=r"tokens\.key") as complaint:
        load_or_make_key(tmp_path, "tokens")
    assert "\n" not in str(complaint.value)
