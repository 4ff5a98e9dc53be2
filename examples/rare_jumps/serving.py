"""The two-part model as a bundle whose outputs are in the user's units, and its answers over gRPC."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.model.write import write_bundle

from examples.serving import served

from .ensemble import HIDDEN_SIZE, Ensemble
from .measure import CALLED, carried, figures, windowed
from .series import FEATURES, Floats, Series
from .training import WINDOW
from .variants import LOG_ODDS_SHIFT, SIZE_CENTRE, likelier

WINDOWS = 40


def save(model: Ensemble, folder: Path) -> None:
    """Writes the bundle, replacing an existing one.

    Its prediction: odds of a jump (p / (1 - p)), an ordinary value, the size of a jump.
    """
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "jumps",
        "cell": "lstm",
        "input_size": FEATURES,
        "hidden_size": HIDDEN_SIZE,
        "num_layers": 1,
        "input": {"kind": "features"},
        "head": [{"units": 3, "activation": "linear"}],
        "output": [{"op": "offset", "value": [LOG_ODDS_SHIFT, 0.0, SIZE_CENTRE]}, {"op": "exp"}],
    }
    if folder.exists():
        shutil.rmtree(folder)
    write_bundle(folder, config, {name: value.numpy() for name, value in model.bundle_tensors(0).items()})


def answers(bundle: Path, series: Series) -> tuple[Floats, Floats]:
    """Returns answers over gRPC.

    First, every stream through a session of its own, pipelined, [T, B, 3]; then the last WINDOWS predictions of the
    first stream once more, each from a reset and the WINDOW steps up to it, [WINDOWS, 3].
    """
    with served(bundle) as (client, _, _):
        streams = [
            np.stack(list(client.session(f"machine-{i}").stream(features)))
            for i, features in enumerate(series.features.swapaxes(0, 1))
        ]
        session, windows = client.session("windows"), []
        for end in range(len(series.features) - WINDOWS + 1, len(series.features) + 1):
            session.reset()
            windows.append(session.step(series.features[end - WINDOW : end, 0])[-1])
    return np.stack(streams, axis=1), np.stack(windows)


def from_odds(predictions: Floats) -> Floats:
    """Converts predictions [..., 3] as a client would: to the size if a jump is likely, else to the ordinary value."""
    odds, ordinary, size = np.moveaxis(predictions, -1, 0)
    return np.asarray(np.where(odds >= 1, size, ordinary), np.float32)


def serve(model: Ensemble, bundle: Path, series: Series) -> tuple[dict[str, Any], Floats]:
    """Compares the service's answers with PyTorch's.

    Also returns the target, odds, ordinary value and size of the first stream, [T, 4].
    """
    streams, windows = answers(bundle, series)
    came = from_odds(streams)[WINDOW - 1 :]
    here = likelier(carried(model, series)[0]).numpy()
    alone = likelier(windowed(model, series)[0, -WINDOWS:, 0]).numpy()
    results = {
        **figures(torch.from_numpy(came), series.target),
        "steps": int(series.target.size),
        "same decision": float(((came > CALLED) == (here > CALLED)).mean()),
        "apart": _apart(came, here),
        "windows": WINDOWS,
        "windows apart": _apart(from_odds(windows), alone),
    }
    return results, np.column_stack([series.target[:, 0], streams[:, 0]])


def _apart(came: Floats, expected: Floats) -> float:
    """Returns the largest relative difference."""
    return float((np.abs(came - expected) / expected).max())
