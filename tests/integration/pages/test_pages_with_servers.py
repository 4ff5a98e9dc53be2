"""Every block of the pages that start servers is executed, in order, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.redis_server import free_port

from .documents import FIRST_MODEL, PAGES, parameter, starts_a_server
from .reader import Reader

NO_SERVER = "localhost:1"


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES if starts_a_server(page) and page != FIRST_MODEL])
def test_a_page(page: Path, reading_folder: Path) -> None:
    Reader(page, NO_SERVER, free_port()).read()


def test_the_first_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Reader(FIRST_MODEL, NO_SERVER, free_port()).read()
