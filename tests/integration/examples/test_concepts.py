"""The programs of docs/concepts.md do what the page says, and its links work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from examples.serving import served
from testing.page import python_blocks

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "concepts.md"
PROGRAMS = python_blocks(PAGE)
TARGET = "localhost:50051"


def run(program: str) -> None:
    namespace: dict[str, Any] = {}
    exec(program, namespace)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # slower there, says PyTorch
@pytest.mark.parametrize("program", [program for program in PROGRAMS if TARGET not in program])
def test_a_program(program: str) -> None:
    run(program)


def test_the_session() -> None:
    (program,) = [program for program in PROGRAMS if TARGET in program]
    with served(ROOT / "examples" / "co2" / "bundle") as (_, target, _):
        run(program.replace(TARGET, target))


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGE.read_text())
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
