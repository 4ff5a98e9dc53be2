"""gRPC's event engine is off in the server and in the client, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from cellkeeper._transport import grpc_setting

VARIABLE = "GRPC_EXPERIMENTS"
CLIENT = "cellkeeper"
SERVER = "cellkeeper_service.program"
# Prints the variable when gRPC is imported, which is when gRPC reads it and complains.
USED = """
import os, sys
class Finder:
    def find_spec(name, *more):
        if name == "grpc":
            print(os.environ.get({variable!r}))
sys.meta_path.insert(0, Finder)
import {imported}
import grpc
"""


def ran(imported: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    code = USED.format(imported=imported, variable=VARIABLE)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize(
    ("imported", "expected"), [(SERVER, "-event_engine_listener"), (CLIENT, "-event_engine_client")]
)
def test_the_event_engine_is_off_and_grpc_knows_its_name(imported: str, expected: str) -> None:
    """gRPC would say "Unknown experiment" on stderr. If the client's variable is missing, see SWITCHABLE."""
    done = ran(imported)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


def test_a_server_does_not_inherit_the_clients_value() -> None:
    """A program that has imported the client may start a server."""
    assert ran(SERVER, **{VARIABLE: "-event_engine_client"}).stdout == "-event_engine_listener\n"


def test_grpc_would_tell() -> None:
    assert "Unknown experiment: no_such_thing" in ran(CLIENT, **{VARIABLE: "no_such_thing"}).stderr


@pytest.mark.parametrize("imported", [SERVER, CLIENT])
def test_the_variable_may_say_otherwise(imported: str) -> None:
    done = ran(imported, **{VARIABLE: "event_engine_client"})
    assert (done.stdout, done.stderr) == ("event_engine_client\n", "")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.79.3", False),
        ("1.80.0", True),
        ("1.80.0rc1", True),
        ("1.85.0.dev0", True),
        ("1.85.1", True),
        ("1.86.0rc1", False),
        ("2.80.0", False),
        ("1.85rc1", False),
        ("1", False),
        ("", False),
    ],
)
def test_the_client_sets_it_for_the_releases_that_are_known(
    monkeypatch: pytest.MonkeyPatch, version: str, expected: bool
) -> None:
    monkeypatch.setattr(grpc_setting, "version", lambda name: version)
    assert (grpc_setting.release() in grpc_setting.SWITCHABLE) is expected


@pytest.mark.parametrize("line", ["Version: 1.86.0", ""], ids=["newer", "no version"])
def test_a_release_that_is_not_known_is_left_alone(tmp_path: Path, line: str) -> None:
    """An interrupted installation leaves metadata without a version, and importlib.metadata then returns None."""
    folder = tmp_path / "grpcio-1.86.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: grpcio\n{line}\n")
    done = ran(CLIENT, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_the_client_can_be_imported_without_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(grpc_setting, "version", version)
    assert grpc_setting.release() == (0, 0)
