"""Keras files, changed, and files of Keras 2, which the Keras that is installed does not write."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from testing.bundles import Array


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None], **more: bytes) -> Path:
    """Copies a .keras file with a changed config.json and additional entries."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**parts, **more}.items():
            archive.writestr(name, data)
    return target


def write_keras2(
    path: Path,
    layers: Sequence[tuple[str, dict[str, Any], Mapping[str, Array]]],
    shape: Sequence[int | None] = (None, None, 3),
    version: str = "2.15.0",
) -> Path:
    """Writes a .h5 file of Keras 2 with a chain of layers: their classes, configs and weights. version: "" for none."""
    entries: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": list(shape), "name": "input_1"}}
    ]
    with h5py.File(path, "w") as store:
        for number, (kind, config, weights) in enumerate(layers):
            name = f"{kind.lower()}_{number}"
            entries.append({"class_name": kind, "config": {"name": name, "dtype": "float32", **config}})
            group = store.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in weights]
            for weight, values in weights.items():
                group[f"{name}/{weight}:0"] = np.asarray(values, np.float32)
        config = {"name": "model", "layers": entries}
        store.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        if version:
            store.attrs["keras_version"] = version
    return path
