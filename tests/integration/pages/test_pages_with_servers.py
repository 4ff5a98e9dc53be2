"""Runs every block of the pages that begin with their own server, and compares the output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testing.held_port import HeldPort
from testing.page import blocks

from .documents import FIRST_MODEL, PAGES, finds_a_server, parameter
from .reader import Reader

NO_SERVER = "localhost:1"

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    "page", [parameter(page) for page in PAGES if not finds_a_server(page) and page != FIRST_MODEL]
)
def test_a_page(page: Path, reading_folder: Path) -> None:
    if shutil.which("sqlite3") is None and any(block.text.startswith("sqlite3 ") for block in blocks(page)):
        pytest.skip("no sqlite3 on the PATH: scripts/ensure-sqlite installs Debian's package")
    with HeldPort() as redis_port:
        Reader(page, NO_SERVER, redis_port).read()


def test_the_first_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with HeldPort() as redis_port:
        Reader(FIRST_MODEL, NO_SERVER, redis_port).read()
