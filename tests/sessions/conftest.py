"""Every test of sessions is done with both cores."""

from __future__ import annotations

import pytest

from .world import World


@pytest.fixture(autouse=True, params=["sessions", "core"])
def which(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that this test's worlds are made of."""
    monkeypatch.setattr(World, "core", request.param == "core")
    return str(request.param)
