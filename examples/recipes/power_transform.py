"""python -m examples.recipes.power_transform: a fitted PowerTransformer of scikit-learn before a GRU.

A bundle's own normalization is linear in each feature. A nonlinear transform goes into the module: clients send their
own units, and the graph computes the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.converters import Imported, import_torch
from sklearn.preprocessing import PowerTransformer
from torch import Tensor, nn

from .compare import Recipe, main


class Power(nn.Module):
    """What a fitted PowerTransformer does, with either method: [..., F] to [..., F]."""

    def __init__(self, fitted: Any) -> None:
        super().__init__()
        size = len(fitted.lambdas_)
        scaler = fitted._scaler if fitted.standardize else None
        self.yeo_johnson = fitted.method == "yeo-johnson"
        self.register_buffer("powers", torch.tensor(fitted.lambdas_, dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(scaler.mean_ if scaler else np.zeros(size), dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scaler.scale_ if scaler else np.ones(size), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        powers = self.get_buffer("powers")
        if self.yeo_johnson:
            up = _bent(torch.log1p(x.clamp_min(0.0)), powers)
            y = up - _bent(torch.log1p((-x).clamp_min(0.0)), 2.0 - powers)
        else:  # Box-Cox, for positive values only
            y = _bent(torch.log(x), powers)
        return (y - self.get_buffer("mean")) / self.get_buffer("scale")


def _bent(logs: Tensor, powers: Tensor) -> Tensor:
    """Returns (exp(logs) ** powers - 1) / powers, and its limit where a power is 0."""
    flat = powers.abs() < 1e-6
    return torch.where(flat, logs, torch.expm1(logs * powers) / torch.where(flat, 1.0, powers))


class Scaled(nn.Module):
    """[B, T, 3] -> [B, T, 2]."""

    def __init__(self, fitted: Any) -> None:
        super().__init__()
        self.power = Power(fitted)
        self.gru = nn.GRU(3, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.gru(self.power(x))[0])
        return result


def recipe() -> Recipe:
    torch.manual_seed(0)
    x = torch.randn(60, 3).exp()  # skewed, as flows and prices are
    fitted = PowerTransformer().fit(x.numpy().astype(np.float64))
    model = Scaled(fitted).eval()

    def into(folder: Path) -> Imported:
        return import_torch(model, folder, example=x[None])

    transformed = torch.tensor(fitted.transform(x.numpy().astype(np.float64)), dtype=torch.float32)
    with torch.no_grad():  # runs scikit-learn's own numbers through the layers
        expected = model.head(model.gru(transformed[None])[0])[0].numpy()
    return Recipe("power_transform", into, list(x.numpy()), expected)


if __name__ == "__main__":
    main(recipe())
