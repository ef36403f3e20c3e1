"""The command as it is typed: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from hexhail import __version__
from hexhail.rpc.keys import load_or_make_key
from hexhail.rpc.tokens import Principal, Role, verify_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEXHAIL = (sys.executable, "-m", "hexhail")
READY_S = 60.0
GONE_S = 5.0


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Without whatever this machine has set, and with folders of the test's own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEXHAIL_")}
    return {
        **clean,
        "HEXHAIL_DATA_DIR": str(tmp_path / "data"),
        "HEXHAIL_CACHE_DIR": str(tmp_path / "cache"),
        "HEXHAIL_DATA": str(tmp_path / "no-data"),
        **more,
    }


def typed(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*HEXHAIL, *words), env=environment(tmp_path, **more), capture_output=True, text=True, timeout=100, check=False
    )


def mentioning(folder: Path) -> list[psutil.Process]:
    """Processes whose command line mentions a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            found.append(process)
    return found


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What the condition gives, once it is true; fails naming `what`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    pytest.fail(f"{what} within {seconds:g} s")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a demo in a folder of the test's own, and gives it once its city is open."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        argv = (*HEXHAIL, "demo", "--city", "gridport", "--drivers", "20", "--data-dir", str(tmp_path / "data"), *words)
        log = tmp_path / "demo.log"
        with log.open("wb") as out:
            process = subprocess.Popen(argv, env=environment(tmp_path), stdout=out, stderr=out)
        started.append(process)
        wait_for(lambda: b" open: " in log.read_bytes() or process.poll() is not None, READY_S, "the city is not open")
        assert process.poll() is None, log.read_text()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_version(tmp_path: Path) -> None:
    done = typed(tmp_path, "version")
    assert done.returncode == 0
    assert f"hexhail {__version__}" in done.stdout


@pytest.mark.parametrize("command", ["up", "demo", "drive", "serve", "bench", "token", "erase", "version"])
def test_help_teaches_every_command(tmp_path: Path, command: str) -> None:
    done = typed(tmp_path, command, "--help", COLUMNS="120")
    assert done.returncode == 0
    assert f"hexhail {command}" in done.stdout


def test_a_token_is_one_that_services_believe(tmp_path: Path) -> None:
    done = typed(tmp_path, "token", "--role", "driver", "--subject", "acme.d1")
    assert done.returncode == 0, done.stderr
    key = load_or_make_key(tmp_path / "data", "tokens")
    assert verify_token(key, done.stdout.strip()) == Principal(Role.DRIVER, "acme.d1")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("demo", "--city", "atlantis"), "there is no city 'atlantis': known are gridport, manhattan"),
        (("demo", "--city", "manhattan"), "set HEXHAIL_DATA to the folder that holds"),
        (("demo", "--requests", "nobody.csv.gz"), "nobody.csv.gz: is not there"),
        (("demo", "--sample", "0"), "sample is 0.0"),
        (("demo", "--json", "nowhere/out.json"), "there is no folder"),
        (("demo", "--at", "tomorrow"), "'tomorrow' is not a time such as 2013-01-01T00:20"),
        (("serve", "weather"), "there is no service 'weather': known are location, matching, pricing"),
        (("serve", "location"), "HEXHAIL_REDIS_URL is not set"),
        (("serve", "pricing", "--workers", "2"), "pricing cannot be served by several workers: only location, matching can"),
        (("erase", "d1", "--location", "unix:/nowhere/location.sock"), "failed to connect"),
        (("token", "--role", "rider", "--subject", "no body"), "subject holds characters other than"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    done = typed(tmp_path, *words)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("hexhail: ")


def test_a_store_that_does_not_answer_is_named_with_its_setting(tmp_path: Path) -> None:
    done = typed(tmp_path, "demo", "--minutes", "0.1", HEXHAIL_REDIS_URL=f"unix://{tmp_path}/nobody.sock")
    assert done.returncode != 0
    assert "HEXHAIL_REDIS_URL" in done.stderr
    assert not mentioning(tmp_path / "data")


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = typed(tmp_path, "up", "--city", "gridport", HEXHAIL_LOCATION_ADDRESS=address)
    assert done.returncode != 0
    assert f"location cannot listen at {address}" in done.stderr
    assert "HEXHAIL_LOCATION_ADDRESS" in done.stderr
    assert not mentioning(tmp_path / "data")


def test_workers_cannot_share_a_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/location.sock"
    done = typed(tmp_path, "serve", "location", "--workers", "2", HEXHAIL_LOCATION_ADDRESS=address)
    assert done.returncode != 0
    assert done.stderr.strip() == f"hexhail: workers cannot share {address}: give HEXHAIL_LOCATION_ADDRESS as host:port"


def test_a_demo_ends_by_itself_with_a_summary_that_adds_up(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ("--city", "gridport", "--minutes", "0.15", "--drivers", "60", "--json", str(out))
    done = typed(tmp_path, "demo", *words)
    assert done.returncode == 0, done.stderr
    summary = json.loads(out.read_text())
    assert summary["requests"] > 0
    assert summary["requests"] == sum(summary[key] for key in ("matched", "cancelled", "expired", "open_at_end"))
    assert summary["matched"] > 0
    assert summary["double_assignments"] == 0
    assert summary["rpc_errors"] == {}
    assert summary["fixes_sent"] == summary["fixes_accepted"] + sum(summary["fixes_dropped"].values())
    assert summary["parameters"]["city"] == "gridport"
    assert summary["parameters"]["think_s"] == [0.5, 3.0]
    assert not list(tmp_path.glob("**/*.sock"))


def test_ctrl_c_ends_a_demo_with_a_summary_and_nothing_left_behind(
    tmp_path: Path, demo: Callable[..., subprocess.Popen[bytes]]
) -> None:
    out = tmp_path / "out.json"
    process = demo("--json", str(out))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=40) == 0, (tmp_path / "demo.log").read_text()
    assert "requests" in json.loads(out.read_text())
    assert not mentioning(tmp_path / "data")


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path, demo: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = demo()
    assert len(mentioning(tmp_path / "data")) > 4
    process.kill()
    process.wait()
    wait_for(lambda: not mentioning(tmp_path / "data"), GONE_S, "a process outlives the killed demo")
