"""What `make test` begins first exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.distribution import LONG

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scope", LONG)
def test_each_long_module_exists(scope: str) -> None:
    assert (ROOT / scope).exists(), f"testing/distribution.py: {scope}: no such module; name what took its place"
