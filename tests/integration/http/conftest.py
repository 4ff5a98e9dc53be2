from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.bundles import counting_bundle, holding_bundle, make_bundle, token_bundle

from .front import Front, serving


@pytest.fixture(scope="package")
def lstm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model "lstm": three features, two layers of 8, two predicted values, and feedback."""
    folder = tmp_path_factory.mktemp("bundles") / "lstm"
    return make_bundle(folder, name="lstm", input_size=3, num_layers=2, head=(2,), feedback=[0, 1, "known"])


@pytest.fixture(scope="package")
def front(counting_model: Path, lstm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server of "count", "lstm", "hold", for which NaN is missing, and "tokens", which takes ids below 10."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [counting_model, lstm_model, holding_bundle(folder, "hold"), token_bundle(folder, "tokens")]
    with serving(bundles, options=["--max-replay-steps", "1000"]) as made:
        yield made


@pytest.fixture(scope="package")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server of "pump", which predicts `flow` from `flow` and `load`, and of "gaps", which takes missing values."""
    folder, names = tmp_path_factory.mktemp("bundles"), ["flow", "load"]
    options: dict[str, Any] = {"features": 2, "feature_names": names, "feedback": [0, "known"]}
    missing = {"kind": "features", "missing": {"policy": "hold", "value": 0.0}}
    pump = counting_bundle(folder / "pump", name="pump", **options)
    with serving([pump, counting_bundle(folder / "gaps", name="gaps", input=missing, **options)]) as made:
        yield made
