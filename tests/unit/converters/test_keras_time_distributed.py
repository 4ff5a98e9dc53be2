"""Layers within TimeDistributed are read like the layers themselves; what is not read is offered to be traced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.engine.load import offline

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 4, "report": str}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_layers_within_time_distributed(kind: str, keras: Any, tmp_path: Path) -> None:
    L = keras.layers
    inner = [L.LayerNormalization(), L.BatchNormalization(), L.Dense(5, activation="gelu"), L.Dropout(0.2)]
    after = [L.LeakyReLU(0.2), L.Activation("softmax")]
    layers = [*map(L.TimeDistributed, inner), L.LSTM(6, return_sequences=True), *map(L.TimeDistributed, after)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.2, 1.0, value.shape).astype(np.float32) for value in model.get_weights()])
    model.save(tmp_path / f"m.{kind}")
    import_keras(tmp_path / f"m.{kind}", tmp_path / "m", **QUICK)
    x = draw.standard_normal((50, 3)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(x[None], training=False))[0]
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, atol=1e-5)


def test_what_is_not_read_is_offered_to_be_traced(keras: Any, tmp_path: Path) -> None:
    L = keras.layers
    x, other = keras.Input((None, 3)), keras.Input((None, 2))
    y = L.LSTM(4, return_sequences=True)(x)
    twice = L.Dense(4)
    outputs = {
        "expected one of": L.TimeDistributed(L.UnitNormalization())(y),
        "is used more than once": twice(twice(y)),
        r"got values of the widths \[4, 1\]": L.Multiply()([y, L.Dense(1)(y)]),
    }
    models = {words: keras.Model(x, output) for words, output in outputs.items()}
    models["expected one: only models with one input"] = keras.Model([x, other], L.Concatenate()([y, other]))
    for number, (words, model) in enumerate(models.items()):
        model.save(tmp_path / f"{number}.keras")
        refused(
            tmp_path, f"{words}.*; pass --trace", import_keras, tmp_path / f"{number}.keras", tmp_path / "m", **QUICK
        )
