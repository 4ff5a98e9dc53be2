"""The worlds of these tests run the new core."""

from __future__ import annotations

import pytest

from tests.sessions.world import World


@pytest.fixture(autouse=True)
def new_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "core", True)
