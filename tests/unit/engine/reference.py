"""A whole sequence in float64, from the initial state."""

from __future__ import annotations

import numpy as np
from cellkeeper_service.model.config import Features, RecurrentConfig

from testing.bundles import Array
from tests.unit.kernels.reference import run_reference


def reference_run(config: RecurrentConfig, tensors: dict[str, Array], inputs: Array) -> dict[str, Array]:
    """Runs inputs [T, F] or ids [T] -> prediction [T, units], hidden [T, H], h [layers, H], c (of an LSTM)."""
    layers, source = config.num_layers, config.input
    shapes = {"h": (layers, config.recurrent_size)}
    if config.cell == "lstm":
        shapes["c"] = (layers, config.hidden_size)
    parts = [tensors.get(f"initial.{name}", np.zeros(shape)).ravel() for name, shape in shapes.items()]
    if isinstance(source, Features) and source.missing.policy == "hold":
        parts.append(np.full(source.size, source.missing.value))
    ran = run_reference(config, tensors, np.concatenate(parts).astype(np.float64), inputs)
    ends = np.cumsum([len(part) for part in parts])[: len(shapes)]
    states = zip(shapes.items(), np.split(ran.state, ends), strict=False)
    return {
        "prediction": ran.predictions,
        "hidden": ran.hidden,
        **{name: values.reshape(shape) for (name, shape), values in states},
    }
