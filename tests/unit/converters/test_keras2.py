"""Files of Keras 2, assembled by hand as it wrote them: other names in the config, and the old HDF5 layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.converters.reference import Float64Run
from cellkeeper_service.converters.stack import Dense, Recurrent, Stack
from cellkeeper_service.engine.load import offline

from testing.bundles import Array

from .leftovers import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def keras2_file(path: Path, functional: bool = False, **gru: Any) -> dict[str, Array]:
    """Writes a file with GRU 4 (reset_after=False) and Dense 2. Returns its arrays."""
    draw = np.random.default_rng(1)
    arrays = {
        "gru/gru_cell/kernel:0": draw.uniform(-0.5, 0.5, (3, 12)),
        "gru/gru_cell/recurrent_kernel:0": draw.uniform(-0.5, 0.5, (4, 12)),
        "gru/gru_cell/bias:0": draw.uniform(-0.5, 0.5, 12),
        "dense/kernel:0": draw.uniform(-0.5, 0.5, (4, 2)),
        "dense/bias:0": draw.uniform(-0.5, 0.5, 2),
    }
    recurrent = {
        "name": "gru",
        "dtype": "float32",
        "units": 4,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "return_sequences": True,
        "use_bias": True,
        "time_major": False,
        **gru,
    }
    layers: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, None, 3], "name": "input_1"}},
        {"class_name": "GRU", "config": recurrent},
        {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "linear"}},
    ]
    config: dict[str, Any] = {"name": "model", "layers": layers}
    if functional:
        for number, layer in enumerate(layers):
            layer["name"] = layer["config"]["name"]
            layer["inbound_nodes"] = [[[layers[number - 1]["name"], 0, 0, {}]]] if number else []
        config |= {"input_layers": [["input_1", 0, 0]], "output_layers": [["dense", 0, 0]]}
    with h5py.File(path, "w") as store:
        kind = "Functional" if functional else "Sequential"
        store.attrs["model_config"] = json.dumps({"class_name": kind, "config": config})
        store.attrs["keras_version"] = "2.4.0"
        for owner in ("gru", "dense"):
            group = store.create_group(f"model_weights/{owner}")
            mine = [name for name in arrays if name.startswith(f"{owner}/")]
            group.attrs["weight_names"] = [name.encode() for name in mine]
            for name in mine:
                group[name] = arrays[name].astype(np.float32)
    return {name.rpartition("/")[2].partition(":")[0] + name[:1]: value for name, value in arrays.items()}


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_is_always_in_training_mode_is_refused(nested: bool, tmp_path: Path) -> None:
    """Keras 2 keeps training=True of a layer's call, also when it predicts."""
    path = tmp_path / "old.h5"
    keras2_file(path, True)
    with h5py.File(path, "r+") as store:
        model = json.loads(store.attrs["model_config"])
        tensor = ["gru", 0, 0, {"training": True}]
        model["config"]["layers"][-1]["inbound_nodes"] = [[tensor]] if nested else [tensor]
        store.attrs["model_config"] = json.dumps(model)
    words = r"dense \(Dense\): is called with training=True"
    refused(tmp_path, words, import_keras, path, tmp_path / "m", max_batch=8, report=str)


@pytest.mark.parametrize("functional", [False, True])
def test_a_file_of_keras_2(functional: bool, tmp_path: Path) -> None:
    """The reference follows the equations: z, r, h are Keras' gates. The config does not mention reset_after."""
    arrays = keras2_file(tmp_path / "old.h5", functional)
    import_keras(tmp_path / "old.h5", tmp_path / "m", max_batch=8, report=str)

    def gates(values: Array) -> Array:
        z, r, h = np.split(values, 3)
        return np.concatenate([r, z, h])

    weights = {
        "weight_ih": gates(arrays["kernelg"].T),
        "weight_hh": gates(arrays["recurrent_kernelg"].T),
        "bias_ih": gates(arrays["biasg"]),
        "bias_hh": np.zeros(12),
    }
    dense = Dense("dense", arrays["kerneld"].T, arrays["biasd"])
    run = Float64Run(Stack(3, (Recurrent("gru", "gru", 4, weights, reset_after=False), dense)))
    x = np.random.default_rng(2).standard_normal((9, 3)).astype(np.float32)
    expected = np.stack([run.step(row) for row in x])
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "silu"])  # a cell with silu is written out node by node
def test_hard_sigmoid_is_that_of_keras_2(activation: str, tmp_path: Path) -> None:
    """Keras 2 computes 0.2 x + 0.5, Keras 3 x / 6 + 0.5; LSTM and GRU had it by default for years."""
    arrays = keras2_file(tmp_path / "old.h5", recurrent_activation="hard_sigmoid", activation=activation)
    imported = import_keras(tmp_path / "old.h5", tmp_path / "m", max_batch=4, report=str)
    assert "keras 3 computes hard_sigmoid of Keras 2 otherwise" in imported.parity.source
    x = np.random.default_rng(2).standard_normal((50, 3)).astype(np.float32) * 4
    h = np.zeros(4)
    for row in x:
        z, r, n = np.split(row @ arrays["kernelg"] + arrays["biasg"], 3)
        back = np.split(arrays["recurrent_kernelg"], 3, axis=1)
        z, r = (np.clip(0.2 * (gate + h @ by) + 0.5, 0, 1) for gate, by in zip((z, r), back[:2], strict=True))
        n = n + (r * h) @ back[2]
        h = z * h + (1 - z) * (np.tanh(n) if activation == "tanh" else n / (1 + np.exp(-n)))
    expected = h @ arrays["kerneld"] + arrays["biasd"]
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"][-1], expected, rtol=1e-4, atol=1e-5)


def test_hard_sigmoid_of_keras_2_is_not_traced_by_keras_3(keras: Any, tmp_path: Path) -> None:
    L = keras.layers
    model = keras.Sequential([keras.Input((None, 3)), L.GRU(4), L.UnitNormalization(), L.Activation("hard_sigmoid")])
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as store:
        store.attrs["keras_version"] = "2.15.0"
    words = "holds hard_sigmoid of Keras 2, which Keras 3 computes otherwise"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", trace=True)
    with h5py.File(tmp_path / "old.h5", "r+") as store:
        del store.attrs["keras_version"]
    words = "not a layer that the import reads.*; pass --trace"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m")


def test_what_keras_2_did_otherwise_is_refused(tmp_path: Path) -> None:
    keras2_file(tmp_path / "b.h5", time_major=True)
    refused(tmp_path, "time_major: got true", import_keras, tmp_path / "b.h5", tmp_path / "m")
    keras2_file(tmp_path / "c.h5", reset_after=True)
    refused(tmp_path, r"bias: got shape \[12\], expected \[2, 12\]", import_keras, tmp_path / "c.h5", tmp_path / "m")
