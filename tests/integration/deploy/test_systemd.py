"""The unit of systemd and its settings: valid, and in agreement with each other and the service."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from cellkeeper_service.server.config import Settings

from tests.integration.deploy.stack import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNIT, SETTINGS = FOLDER / "cellkeeper.service", FOLDER / "cellkeeper.env"
PROGRAM = "/opt/cellkeeper/bin/cellkeeper-server"


def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def variables(*, others: bool = False) -> dict[str, str]:
    """Returns the settings of the file. others: those that are commented out."""
    pattern = r"^#(CELLKEEPER_\w+)=(.+)$" if others else r"^(CELLKEEPER_\w+)=(.+)$"
    return dict(re.findall(pattern, SETTINGS.read_text(), re.MULTILINE))


def words() -> list[str]:
    """Returns the arguments of `cellkeeper-server serve`."""
    program, command, *rest = shlex.split(unit()["Service"]["ExecStart"])
    assert (program, command) == (PROGRAM, "serve")
    return rest


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))  # the program is not installed there
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_settings_are_settings() -> None:
    settings = Settings.read(words(), variables())
    Settings.read(words(), {**variables(), **variables(others=True)})
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) * 1000 >= settings.drain_delay_ms + settings.drain_timeout_ms + 5000
    assert int(service["LimitNOFILE"]) >= settings.max_connections + 1024  # what the server itself needs, and room
