"""torch.onnx, as people call it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def exported(model: nn.Module, example: tuple[Tensor, ...], names: tuple[list[str], list[str]], axes: Any) -> bytes:
    """Exports the model with torch.onnx."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-onnx-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, which needs no further packages
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model.eval(), example, path, dynamo=False, input_names=names[0], output_names=names[1], dynamic_axes=axes
        )
        return path.read_bytes()
