"""What the README says works: its program runs against a real server, its links lead somewhere."""

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

from examples.co2.processes import CellkeeperServer

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "examples" / "co2" / "bundle"
TARGET = "localhost:50051"
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/client.md",
    "docs/console.md",
    "docs/models.md",
    "docs/adr/README.md",
    "docs/capacity.md",
    "docs/deployment.md",
    "docs/runbooks/README.md",
    "examples/co2/README.md",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CellkeeperServer]:
    server = CellkeeperServer(BUNDLE, f"sqlite:{tmp_path / 'sessions.db'}", tmp_path / "server.log")
    with closing(server):
        server.start()
        yield server


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_program(server: CellkeeperServer) -> None:
    assert len(programs()) == 4
    program = programs()[0]
    assert TARGET in program
    namespace: dict[str, Any] = {}
    exec(program.partition("with Client")[0], namespace)  # up to there it makes its samples
    chunk = namespace["ppm"].tolist()
    samples = [*chunk, *map(float, re.findall(r"session\.step\(\[(.*?)\]\)", program))]
    assert len(samples) == len(chunk) + 1
    printed = []
    for _ in range(2):  # the second run continues where the first one stopped
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program.replace(TARGET, server.target)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        printed += ran.stdout.splitlines()
    expected = offline(BUNDLE, np.array(samples * 2, np.float32).reshape(-1, 1))["prediction"]
    shown = [len(chunk) - 1, len(chunk), len(samples) + len(chunk) - 1, len(samples) + len(chunk)]
    assert printed == [str(expected[step]) for step in shown]


def test_sessions_and_groups_blocking_and_in_asyncio(server: CellkeeperServer) -> None:
    program = programs()[1].replace(TARGET, server.target)
    command = [sys.executable, "-W", "error", "-c", program]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    seven = [318.0, 318.1, 318.2, 318.2, 318.3, 318.2, 318.0, 318.2]  # what the program gives station-7, in order
    nine = [318.2, 318.4]
    of_seven, of_nine = (
        offline(BUNDLE, np.array(samples, np.float32).reshape(-1, 1))["prediction"] for samples in (seven, nine)
    )
    assert lines == [
        *(str(of_seven[step]) for step in range(3)),
        "(200, 3)",
        *str({"station-7": of_seven[4], "station-9": of_nine[1]}).splitlines(),
        str(of_seven[6]),
        "(200, 3)",
    ]


def test_from_a_trained_lstm_to_a_served_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, train, ask = programs()
    monkeypatch.chdir(tmp_path)
    script: dict[str, Any] = {}
    exec(train, script)
    assert "parity with torch" in capsys.readouterr().out
    server = CellkeeperServer(tmp_path / "pump", f"sqlite:{tmp_path / 'sessions.db'}", tmp_path / "server.log")
    with closing(server):
        server.start()
        exec(ask.replace(TARGET, server.target), script)
    with torch.no_grad():
        expected = script["head"](script["lstm"](torch.tensor([[[0.5]]]))[0])[0, 0].numpy()
    served = [float(number) for number in capsys.readouterr().out.strip("[] \n").split()]
    np.testing.assert_allclose(served, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not ((ROOT / page).parent / link).exists()] == []


def test_the_makefile_has_what_is_documented() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z-]+)$", (ROOT / page).read_text(), re.MULTILINE)) <= targets


def test_every_page_is_in_an_index() -> None:
    """Of docs/ in the README, of the decisions and runbooks in theirs."""
    for folder, index in (
        ("docs", "README.md"),
        ("docs/adr", "docs/adr/README.md"),
        ("docs/runbooks", "docs/runbooks/README.md"),
    ):
        text, start = (ROOT / index).read_text(), (ROOT / index).parent
        pages = {page for page in (ROOT / folder).glob("*.md") if page != ROOT / index}
        assert pages
        linked = {(start / link).resolve() for link in re.findall(r"\]\(([^)#]+)", text)}
        assert pages <= linked, sorted(page.name for page in pages - linked)
