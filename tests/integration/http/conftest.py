from __future__ import annotations

from pathlib import Path

import pytest

from testing.bundles import make_bundle


@pytest.fixture(scope="package")
def lstm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model "lstm": three features, two layers of 8, two predicted values, and feedback."""
    folder = tmp_path_factory.mktemp("bundles") / "lstm"
    return make_bundle(folder, name="lstm", input_size=3, num_layers=2, head=(2,), feedback=[0, 1, "known"])
