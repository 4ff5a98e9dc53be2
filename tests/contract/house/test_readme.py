"""The README's programs work as it says, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.engine.load import offline
from numpy.typing import NDArray

from examples.co2.processes import CellkeeperServer

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "examples" / "co2" / "bundle"
TARGET = "localhost:50051"
FOLDERS = ("docs", "examples", "bench")  # with pages, besides those at the top
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CellkeeperServer]:
    server = CellkeeperServer(BUNDLE, f"sqlite:{tmp_path / 'sessions.db'}", tmp_path / "server.log")
    with closing(server):
        server.start()
        yield server


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def ran(program: str, server: CellkeeperServer) -> list[str]:
    """Returns the lines that the program printed."""
    assert TARGET in program
    command = [sys.executable, "-W", "error", "-c", program.replace(TARGET, server.target)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


def predicted(*samples: float) -> NDArray[np.float32]:
    """Returns the demo model's predictions over the whole sequence, offline: [T, 3]."""
    found: NDArray[np.float32] = offline(BUNDLE, np.array(samples, np.float32).reshape(-1, 1))["prediction"]
    return found


def test_it_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_a_second_run_continues_after_the_first(server: CellkeeperServer) -> None:
    assert len(programs()) == 3
    printed = ran(programs()[0], server) + ran(programs()[0], server)
    assert printed == [str(prediction) for prediction in predicted(318.2, 318.2)]


def test_sessions_and_groups_blocking_and_in_asyncio(server: CellkeeperServer) -> None:
    seven = predicted(318.1, 318.2, 318.2, 318.3, 318.0)  # what the program sends for station-7, in order
    nine = predicted(318.2, 318.4)
    assert ran(programs()[1], server) == [
        str(seven[0]),
        str(seven[1]),
        "(200, 3)",
        *str({"station-7": seven[3], "station-9": nine[1]}).splitlines(),
        str(seven[4]),
    ]


def test_from_a_trained_lstm_to_a_served_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask, _, train = programs()
    monkeypatch.chdir(tmp_path)
    script: dict[str, Any] = {}
    exec(train, script)
    assert "parity with torch" in capsys.readouterr().out
    server = CellkeeperServer(tmp_path / "pump", f"sqlite:{tmp_path / 'sessions.db'}", tmp_path / "server.log")
    with closing(server):
        server.start()
        exec(ask.replace(TARGET, server.target).replace("318.2", "0.5"), script)
    with torch.no_grad():
        expected = script["head"](script["lstm"](torch.tensor([[[0.5]]]))[0])[0, 0].numpy()
    served = [float(number) for number in capsys.readouterr().out.strip("[] \n").split()]
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)


def test_every_link_of_every_page_leads_somewhere() -> None:
    """As a code host resolves links; `make docs` checks the site's links and anchors."""
    broken = {}
    for page in PAGES:
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if wrong := [link for link in links if "://" not in link and not (page.parent / link).exists()]:
            broken[str(page.relative_to(ROOT))] = wrong
    assert len(PAGES) > 80
    assert broken == {}


def test_the_makefile_has_what_is_documented() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets, page.name


def test_every_decision_and_runbook_is_in_its_index() -> None:
    for folder in ("docs/adr", "docs/runbooks"):
        index = ROOT / folder / "README.md"
        pages = {page for page in (ROOT / folder).glob("*.md") if page != index}
        assert pages
        linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)", index.read_text())}
        assert pages <= linked, sorted(page.name for page in pages - linked)
