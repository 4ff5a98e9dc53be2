"""Handwritten histories, for the tests of the checker."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellkeeper_service.engine.load import load_engine

from .handwritten_history import HandwrittenHistory
from .offline import Reference


@pytest.fixture(scope="module")
def reference(counting_model: Path) -> Reference:
    return Reference(load_engine(counting_model, "cpu"))


@pytest.fixture
def made(reference: Reference) -> HandwrittenHistory:
    return HandwrittenHistory(reference)
