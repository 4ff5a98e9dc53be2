"""A bundle written from torch modules serves the modules' values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.write import write_bundle

from tests.unit.engine.cases import each_engine, new_engine

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@each_engine
@pytest.mark.parametrize("cell", ["lstm", "lstm_proj", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_same_values_as_the_modules(kind: str, cell: str, bias: bool, tmp_path: Path) -> None:
    if kind == "onnxruntime" and cell == "lstm_proj":
        pytest.skip("onnxruntime has no projection")
    torch.manual_seed(3)
    options: dict[str, Any] = {"num_layers": 2, "bias": bias}
    proj_size = 6 if cell == "lstm_proj" else 0
    rnn: torch.nn.Module
    if cell.startswith("lstm"):
        rnn = torch.nn.LSTM(4, 20, proj_size=proj_size, **options)
    elif cell == "gru":
        rnn = torch.nn.GRU(4, 20, **options)
    else:
        rnn = torch.nn.RNN(4, 20, nonlinearity=cell[4:], **options)
    width = proj_size or 20
    model = torch.nn.ModuleDict({"rnn": rnn, "head": torch.nn.ModuleList([torch.nn.Linear(width, 2)])})
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "m",
        "cell": cell.removesuffix("_proj"),
        "input_size": 4,
        "hidden_size": 20,
        "num_layers": 2,
        "proj_size": proj_size,
        "bias": bias,
        "input": {"kind": "features"},
        "head": [{"units": 2, "activation": "linear"}],
    }
    bundle = write_bundle(tmp_path / "m", config, {name: v.numpy() for name, v in model.state_dict().items()})
    inputs = torch.randn(50, 4)
    with torch.no_grad():
        hidden = rnn(inputs[:, None])[0][:, 0]
        expected = model["head"][0](hidden)  # type: ignore[index]
    served = offline(new_engine(kind, bundle, 8), inputs.numpy())
    np.testing.assert_allclose(served["hidden"], hidden.numpy(), rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(served["prediction"], expected.numpy(), rtol=1e-4, atol=2e-6)
