"""Runs every block of the pages that begin with the first model's server, and compares the output."""

from __future__ import annotations

from pathlib import Path

import pytest

from .documents import PAGES, finds_a_server, parameter
from .reader import Reader

NO_REDIS = 1

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES if finds_a_server(page)])
def test_a_page(page: Path, served: str, reading_folder: Path) -> None:
    Reader(page, served, NO_REDIS).read()
