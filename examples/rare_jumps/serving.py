"""The model in two parts as a bundle that gives the user's units, and what it says over gRPC."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.model.write import write_bundle

from examples.serving import served

from .ensemble import HIDDEN_SIZE, Ensemble
from .measure import carried, figures
from .series import FEATURES, Floats, Series
from .training import WINDOW
from .variants import LOG_ODDS_SHIFT, SIZE_CENTRE, TWO_PARTS


def save(model: Ensemble, folder: Path) -> None:
    """Writes the bundle, in the place of one that is there. Its prediction: odds of a jump (p / (1 - p)), an ordinary
    value, the size of a jump."""
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


def answers(bundle: Path, series: Series) -> Floats:
    """Every stream of the series through a session of its own, pipelined: predictions [T, B, 3]."""
    with served(bundle) as (client, _, _):
        streams = [
            np.stack(list(client.session(f"machine-{i}").stream(features)))
            for i, features in enumerate(series.features.swapaxes(0, 1))
        ]
    return np.stack(streams, axis=1)


def likelier(predictions: Floats) -> Floats:
    """What a client makes of [..., 3]: the size where a jump is likelier than not, otherwise the ordinary value."""
    odds, ordinary, size = np.moveaxis(predictions, -1, 0)
    return np.asarray(np.where(odds > 1, size, ordinary), np.float32)


def serve(model: Ensemble, bundle: Path, series: Series) -> dict[str, Any]:
    """What the service says, beside what PyTorch says."""
    came = likelier(answers(bundle, series))[WINDOW - 1 :]
    here = carried(model, (TWO_PARTS,), series)[0].numpy()
    return {
        **figures(torch.from_numpy(came), series.target),
        "steps": int(series.target.size),
        "same decision": float(((came > 10) == (here > 10)).mean()),
        "apart": float(np.median(np.abs(came - here) / here)),
    }
