"""Bundles of the measured models, with random weights."""

from __future__ import annotations

from pathlib import Path

from testing.bundles import make_bundle

from .models import MODELS


def write_model(folder: Path, model: str) -> Path:
    """Writes the bundle folder/model and returns it."""
    shape = MODELS[model]
    return make_bundle(
        folder / model,
        name=model,
        input_size=shape.features,
        hidden_size=shape.hidden,
        num_layers=shape.layers,
        head=(1,),
    )
