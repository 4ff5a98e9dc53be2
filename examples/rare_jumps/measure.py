"""How far predictions are off, on ordinary values and on jumps, and which jumps were seen coming."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .ensemble import Ensemble
from .series import JUMP, Series
from .training import WINDOW
from .variants import Variant, values

CALLED = JUMP / 2  # a prediction from here on says: a jump


def windowed(model: Ensemble, variants: tuple[Variant, ...], series: Series) -> Tensor:
    """Each value predicted from the WINDOW steps up to it alone: [M, T - WINDOW + 1, B]."""
    features = torch.from_numpy(series.features)
    parts = []
    with torch.no_grad():
        for start in range(len(features) - WINDOW + 1):
            outputs, _ = model(features[start : start + WINDOW])
            parts.append(outputs[:, -1])
    return values(variants, torch.stack(parts, dim=1))


def carried(model: Ensemble, variants: tuple[Variant, ...], series: Series) -> Tensor:
    """The same values, with the state carried from the first step on."""
    with torch.no_grad():
        outputs, _ = model(torch.from_numpy(series.features))
    return values(variants, outputs[:, WINDOW - 1 :])


def figures(predicted: Tensor, target: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, float]:
    """predicted: of one model, [T - WINDOW + 1, B]; target: [T, B]."""
    wanted = torch.from_numpy(target[WINDOW - 1 :])
    jumped, called = wanted >= JUMP, predicted >= CALLED
    error = (predicted - wanted).abs().double()
    hits = int((jumped & called).sum())
    return {
        "ordinary": float(error[~jumped].mean()),
        "jumps": float(error[jumped].mean()),
        "recall": hits / int(jumped.sum()),
        "precision": hits / max(1, int(called.sum())),
        "constant": float(predicted.std() < 1e-6),
    }
