"""Every block of the pages that start no server is executed, in order, and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from .documents import PAGES, parameter, starts_a_server
from .reader import Reader

NO_REDIS = 1


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES if not starts_a_server(page)])
def test_a_page(page: Path, served: str, reading_folder: Path) -> None:
    Reader(page, served, NO_REDIS).read()
