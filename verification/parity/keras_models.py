"""Makes Keras models for the cases: fills in random weights, saves and imports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.converters import Imported, import_keras

from .case import Importer


def filled(model: Any, seed: int = 5) -> Any:
    """Sets all weights to random values: new biases are zeros, which would hide misplaced ones."""
    draw = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for value in layer.get_weights():
            reach = 0.5 if value.ndim < 2 else float(value.shape[0]) ** -0.5
            values.append(draw.uniform(-reach, reach, value.shape).astype(value.dtype) if value.ndim else value)
        if type(layer).__name__ == "BatchNormalization":
            values[-1] = np.abs(values[-1]) + 0.5  # a variance
        if type(layer).__name__ != "Normalization":
            layer.set_weights(values)
    return model


def saved(model: Any, suffix: str = ".keras", **options: Any) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        path = folder.with_suffix(suffix)
        model.save(path)
        return import_keras(path, folder, max_batch=max_batch, report=str, **options)

    return run


def functional(inputs: Any, *layers: Any) -> Any:
    import keras

    value = inputs
    for layer in layers:
        value = layer(value)
    return filled(keras.Model(inputs, value))


def sequential(*layers: Any) -> Any:
    import keras

    return filled(keras.Sequential(list(layers)))
