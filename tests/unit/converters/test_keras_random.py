"""Random Keras models that can be streamed: nearly all are imported without Keras' help, and give Keras' values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.converters import ImportRefused, import_keras
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .random_keras import random_model

# Keras' own
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"), pytest.mark.timeout(900)]
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


def attempt(model: Any) -> str:
    """Returns why the model is refused; "" if it is served and agrees."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-random-") as name:
        path = Path(name) / "m.keras"
        model.save(path)
        try:
            imported = import_keras(path, Path(name) / "m", max_batch=8, report=str)
        except ImportRefused as error:
            return str(error)
        assert imported.parity.source.startswith("keras 3")
        assert imported.parity.relative <= 1e-4
        return ""


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(data=st.data())
def test_random_models_get_in(keras: Any, data: st.DataObject) -> None:
    assert attempt(random_model(data.draw)) == ""


@pytest.mark.fire
def test_of_many_random_models_nearly_all_get_in(keras: Any) -> None:
    refusals: list[str] = []

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=QUIET)
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        refusals.append(attempt(random_model(data.draw)))

    run()
    refused = [text for text in refusals if text]
    assert len(refused) <= 0.05 * len(refusals), "\n".join(refused)
    assert not any("differ from" in text and "ordinary" in text for text in refused), "\n".join(refused)
