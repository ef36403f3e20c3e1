"""What a service says to a cluster that it cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("service", ["matching", "pricing"])
def test_a_service_that_wants_a_single_node_says_so_in_one_line(
    service: str, cluster_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    settings = {"HEXHAIL_REDIS_URL": cluster_url, "HEXHAIL_POSTGRES_DSN": postgres_dsn, "HEXHAIL_DATA_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", service, "gridport"],
        env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hexhail: {service}: this service cannot use a cluster yet")
    assert "HEXHAIL_REDIS_URL" in line
