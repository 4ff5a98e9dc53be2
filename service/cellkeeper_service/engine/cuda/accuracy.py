"""Measures an engine's distance from float64 with the model itself: the tolerance of its precision."""

from __future__ import annotations

import numpy as np
import torch

from cellkeeper_service.domain.engine import Array, Engine
from cellkeeper_service.engine.torch_cells import TorchCells
from cellkeeper_service.engine.trial_sequences import ORDINARY, drawn
from cellkeeper_service.model.config import RecurrentConfig
from cellkeeper_service.model.tensors import cell_states

SEQUENCES = 8
STEPS = 32


def relative_error(engine: Engine, config: RecurrentConfig, tensors: dict[str, Array]) -> float:
    """Returns the largest difference from float64 over ordinary sequences, relative to the largest value of that output
    in the sequence. Clears the arena."""
    inputs = drawn(config, np.random.default_rng(0xF64), STEPS, np.full(SEQUENCES, ORDINARY))
    expected = _in_float64(config, tensors, inputs)
    rows = np.zeros(1, np.intp)
    engine.reserve(1)
    worst = 0.0
    for number in range(SEQUENCES):
        engine.write_states(rows, np.frombuffer(engine.initial_state, np.uint8)[None])
        came = engine.run(np.ascontiguousarray(inputs[:, number : number + 1]), rows, rows, frozenset(expected))
        for name, values in expected.items():
            size = max(float(np.abs(values[:, number]).max()), 1e-30)
            worst = max(worst, float(np.abs(came.outputs[name][:, 0] - values[:, number]).max()) / size)
    engine.reserve(0)
    return worst


@torch.inference_mode()
def _in_float64(config: RecurrentConfig, tensors: dict[str, Array], inputs: Array) -> dict[str, Array]:
    """Returns the outputs by name, [STEPS, SEQUENCES, ...]."""
    cells = TorchCells(config, tensors, torch.float64)
    states = [
        tensors[name].ravel() if (name := f"initial.{spec.name}") in tensors else np.zeros(spec.nbytes // 4)
        for spec in cell_states(config)
    ]
    start = torch.from_numpy(np.tile(np.concatenate(states).astype(np.float64), (inputs.shape[1], 1)))
    layers = cells.split(start)
    values = torch.from_numpy(inputs)
    if values.is_floating_point():
        values = values.to(torch.float64)
    hidden = [cells.step(values[step], layers) for step in range(len(values))]
    predictions = [cells.predict(one) for one in hidden]
    return {"hidden": torch.stack(hidden).numpy(), "prediction": torch.stack(predictions).numpy()}
