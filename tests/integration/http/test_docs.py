"""Runs what docs/http.md shows: every shell command, in order, and the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper_service.rpc.http.replies import HTTP_STATUS
from cellkeeper_service.rpc.http.routes import ROUTES, SOCKETS

from .front import Front, serving

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "http.md").read_text()
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def front() -> Iterator[Front]:
    with serving([ROOT / "examples" / "co2" / "bundle"]) as made:
        yield made


def test_every_command_does_what_it_says(front: Front) -> None:
    assert len(blocks("sh")) == 6
    for block in blocks("sh"):
        assert ADDRESS in block
        script = block.replace(ADDRESS, front.url).replace("curl -sS ", "curl -sS --fail-with-body -w '\\n' ")
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        answers = [json.loads(line) for line in ran.stdout.splitlines() if line]
        assert answers
        if "for try" in block:
            assert [answer["replayed"] for answer in answers] == [False, True]
            assert answers[0]["outputs"] == answers[1]["outputs"]
    assert front.session("co2", "mauna-loa").ask("GET").status == 404  # it was deleted at the end
    assert front.session("co2", "mauna-loa, warmer").position()["step"] == 2


def test_the_program(front: Front) -> None:
    (program,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, front.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["0", "1", "2"]


def test_the_page_names_every_route_and_code() -> None:
    for rpc in {route.rpc for route in (*ROUTES, *SOCKETS)}:
        assert rpc in PAGE
    for route in (*ROUTES, *SOCKETS):
        assert f"{route.path.rpartition('/')[2]}".strip("{}") in PAGE
        for name in route.query:
            assert name in PAGE
    assert {code for code in HTTP_STATUS if code not in PAGE} == {"CANCELLED", "UNKNOWN", "UNIMPLEMENTED"}
