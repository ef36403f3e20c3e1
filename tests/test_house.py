"""The rules of the house, held against every tracked file: who may import what, what files are called, what nobody writes."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = ("location", "matching", "pricing")
EDGE_NAMES = re.compile(r"(wire|.+_wire|servicer|.+_grpc|__main__)\.py")
EDGE_FOLDERS = ("hexhail/rpc/", "hexhail/client/", "hexhail/cli/", "tests/")
WIRE_MODULES = ("grpc", "hexhail.api", "grpc_health", "grpc_reflection")
ACTING_MODULES = ("asyncio", "grpc", "redis", "asyncpg", "structlog", "time", "random", "hexhail.api")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|Users|mnt)/|(?<![\w.])/hom[e]/(?!hexhail\b)")
PICTURE = re.compile(r"docs/pictures/[\w-]+\.png")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|proxy\.golang\.org|crates\.io|conda\.anaconda\.org")


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        return []
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]
    return [name for name in names if not PICTURE.fullmatch(name)]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _contract(name: str) -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    return config[f"importlinter:contract:{name}"]["source_modules"].split()


def _imports(source: str, package: str) -> set[str]:
    """Every module that a source imports, wherever in it; `from a import b` counts as both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _among(found: set[str], forbidden: tuple[str, ...]) -> set[str]:
    return {name for name in found for module in forbidden if name == module or name.startswith(f"{module}.")}


def _package_of(name: str) -> str:
    return ".".join(PurePosixPath(name).parent.parts)


def _module_of(name: str) -> str:
    parts = PurePosixPath(name).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TRACKED = _tracked()
PYTHON = [name for name in TRACKED if name.endswith(".py") and not name.startswith("hexhail/api/")]

pytestmark = pytest.mark.skipif(not TRACKED, reason="needs the repository: without it nobody says which files are ours")


def test_the_wire_is_spoken_at_the_edges_only() -> None:
    inside = [n for n in PYTHON if not n.startswith(EDGE_FOLDERS) and not EDGE_NAMES.fullmatch(PurePosixPath(n).name)]
    assert inside
    found = {name: _among(_imports(_text(name), _package_of(name)), WIRE_MODULES) for name in inside}
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_decisions_import_nothing_that_acts() -> None:
    pure = {module: f"{module.replace('.', '/')}.py" for module in _contract("pure")}
    assert set(pure.values()) <= set(PYTHON), "the contract names a file that is not there"
    found = {module: _among(_imports(_text(name), _package_of(name)), ACTING_MODULES) for module, name in pure.items()}
    assert {module: names for module, names in found.items() if names} == {}


def test_no_file_of_a_service_escapes_the_contract_of_the_wire() -> None:
    """A new file is at the edge by its name, or is listed among those that know no protobuf."""
    listed = _contract("wire")
    inner = {
        _module_of(name)
        for name in PYTHON
        if name.startswith(tuple(f"{service}/" for service in SERVICES))
        and not EDGE_NAMES.fullmatch(PurePosixPath(name).name)
        and PurePosixPath(name).name != "__init__.py"
    }
    covered = {module for module in inner for entry in listed if module == entry or module.startswith(f"{entry}.")}
    assert inner - covered == set()


def test_services_do_not_import_each_other() -> None:
    for service in SERVICES:
        others = tuple(other for other in SERVICES if other != service)
        for name in PYTHON:
            if name.startswith(f"{service}/"):
                assert not _among(_imports(_text(name), _package_of(name)), others), name


def test_names_say_what_a_file_holds() -> None:
    ours = [name for name in TRACKED if not name.startswith(("hexhail/api/", "proto/"))]
    vague = {name for name in ours for part in PurePosixPath(name).with_suffix("").parts if part.lower() in VAGUE_NAMES}
    assert vague == set()


def test_tests_are_no_package() -> None:
    """An __init__.py below tests would shadow the package of the same name."""
    assert [name for name in TRACKED if name.startswith("tests/") and name.endswith("__init__.py")] == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["a machine's paths", "a registry's host"])
def test_no_tracked_file_names(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in TRACKED
        for number, line in enumerate(_text(name).splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_lock_files_hold_names_versions_and_hashes_and_no_address() -> None:
    locks = [name for name in TRACKED if name.endswith(".lock")]
    assert locks
    for name in locks:
        text = _text(name)
        assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", text), name
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pins
        assert [line for line in pins if not re.match(r"[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==\S+", line)] == []
        assert text.count("--hash=sha256:") >= len(pins), name


def test_every_json_of_cases_says_what_it_is_about() -> None:
    specs = [name for name in TRACKED if name.startswith("tests/specs/")]
    assert specs
    assert [name for name in specs if '"about"' not in _text(name)] == []
