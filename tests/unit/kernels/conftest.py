from __future__ import annotations

import pytest

from .interpreter import INTERPRETED, install


@pytest.fixture(scope="session", autouse=True)
def _interpreter() -> None:
    if INTERPRETED:
        install()
