"""The built wheel is what a user needs: it has every file, installs nothing heavy, and serves."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest
from cellkeeper_service.rpc.grpc_core import TESTED
from cellkeeper_service.store.redis import wire
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.contract.release.continued import STEPS, predictions
from tests.contract.release.environment import CONSTRAINTS, ROOT, Environment

PACKAGES = {"cellkeeper_proto": "proto", "cellkeeper": "client", "cellkeeper_service": "service"}  # and their folders
COMMAND = "client/cellkeeper_command.py"  # a module of its own
INFO = f"cellkeeper-{version('cellkeeper')}.dist-info"
SHIPPED = {".py", ".pyi", ".proto", ".lua", ".typed", ".html", ".css", ".js", ".svg"}
OF_WHEEL = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
OF_SDIST = {
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "NOTICE",
    "PKG-INFO",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def build(folder: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1750000000"}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)


def shipped_files() -> Iterator[str]:
    """Yields everything that the packages need at run time, as paths relative to the root."""
    for package, root in PACKAGES.items():
        for path in (ROOT / root / package).rglob("*"):
            if path.suffix in SHIPPED or path.name == "py.typed":
                yield str(path.relative_to(ROOT))
    yield COMMAND


def test_the_wheel_has_what_the_packages_need_and_nothing_else(wheel: Path) -> None:
    files = {file.partition("/")[2] for file in shipped_files()}
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    assert {"cellkeeper_proto/v1/cellkeeper.proto", "cellkeeper_service/store/redis/lua/write.lua"} <= files
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == files | {f"{INFO}/{name}" for name in OF_WHEEL}
        assert archive.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert archive.read(f"{INFO}/licenses/NOTICE") == (ROOT / "NOTICE").read_bytes()


def test_the_sdist_has_what_the_wheel_is_built_from_and_no_tests(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert found == {*shipped_files(), *OF_SDIST}


def test_two_builds_have_the_same_bytes(built: Path, tmp_path: Path) -> None:
    build(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in built.iterdir()
    }


def test_every_requirement_of_the_wheel_has_a_pin_that_fulfils_it(wheel: Path) -> None:
    pins = [Requirement(line) for line in CONSTRAINTS.read_text().splitlines() if line and line[0] != "#"]
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"Programming Language :: Python :: {sys.version_info.major}.{sys.version_info.minor}" in metadata.get_all(
        "Classifier", []
    )
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert len(needed) > len(pins) / 2
    for need in needed:
        mine = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(need.name)]
        assert mine, f"{need} has no pin in constraints.txt"
        for pin in mine:
            (exact,) = pin.specifier
            assert exact.operator == "==", pin
            assert need.specifier.contains(exact.version), f"{need}: the pin is {pin}"
    names = {canonicalize_name(need.name) for need in needed} | {"hiredis"}  # redis[hiredis] needs it
    assert {canonicalize_name(pin.name) for pin in pins} <= names, "a pin of what is no direct dependency"


def test_servers_get_the_releases_of_grpcio_that_they_are_tested_with_and_clients_any(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    found = {str(need.marker): need.specifier for need in needed if need.name == "grpcio"}
    oldest = next(one.version for one in SpecifierSet(TESTED) if one.operator == ">=")
    assert found == {"None": SpecifierSet(f">={oldest}"), 'extra == "server"': SpecifierSet(TESTED)}


def test_servers_get_the_releases_of_redis_py_that_they_are_tested_with(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert [one.specifier for one in needed if one.name == "redis"] == [SpecifierSet(wire.TESTED)]


@pytest.mark.timeout(300)
def test_the_client_installs_without_anything_heavy(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", pip=False)
    environment.install(wheel)
    client = environment.client()
    assert client.site.is_relative_to(environment.folder)
    assert client.installed == []
    assert client.imported == []
    for program in ("cellkeeper", "cellkeeper-server"):
        assert environment.program(program).exists()


@pytest.mark.timeout(300)
def test_a_server_from_the_wheel_is_killed_and_its_sessions_go_on(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", pip=False)
    environment.install_beside(wheel)
    assert environment.client().site.is_relative_to(environment.folder)
    served, offline = predictions(environment, tmp_path)
    assert len(served) == STEPS
    assert served == offline
