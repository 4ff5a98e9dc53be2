"""Vanilla RNNs with orthogonal weights, in which small values last, and with them their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.engine.load import offline

HIDDEN, STEPS = 20, 64


def orthogonal(seed: int, nonlinearity: str) -> torch.nn.RNN:
    torch.manual_seed(seed)
    rnn = torch.nn.RNN(3, HIDDEN, 2, nonlinearity=nonlinearity)
    for layer in range(2):
        torch.nn.init.orthogonal_(getattr(rnn, f"weight_hh_l{layer}"))
        for side in ("ih", "hh"):
            torch.nn.init.zeros_(getattr(rnn, f"bias_{side}_l{layer}"))
    return rnn


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_values_of_any_size_keep_their_digits(tmp_path: Path, seed: int, nonlinearity: str, size: float) -> None:
    rnn = orthogonal(seed, nonlinearity)
    import_torch(rnn, tmp_path / "m", report=str)
    x = (size * np.random.default_rng(seed).standard_normal((STEPS, 3))).astype(np.float32)
    with torch.no_grad():
        expected = rnn.double()(torch.from_numpy(x).double())[0].numpy()
    got = offline(tmp_path / "m", x)["prediction"]
    assert np.abs(got - expected).max() < 2e-5 * np.abs(expected).max()
