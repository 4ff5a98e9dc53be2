"""Keras files that lie, are damaged, or hold code or links to other files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest
from cellkeeper_service.converters import import_keras

from verification.parity.keras_models import filled, functional

from .keras_files import rewritten
from .leftovers import refused

# Keras' own warnings while it saves, and those about onnxruntime's and h5py's extension types
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


def layer_of(config: dict[str, Any], number: int) -> dict[str, Any]:
    layer: dict[str, Any] = config["config"]["layers"][number]
    return layer


def test_a_config_that_lies(simple: Path, tmp_path: Path) -> None:
    def other_units(config: dict[str, Any]) -> None:
        layer_of(config, 1)["config"]["units"] = 9

    def other_features(config: dict[str, Any]) -> None:
        layer_of(config, 0)["config"]["batch_shape"] = [None, None, 5]

    def without_sequences(config: dict[str, Any]) -> None:
        layer_of(config, 1)["config"]["return_sequences"] = False

    def own_class(config: dict[str, Any]) -> None:
        layer_of(config, 1)["module"] = "os.path"

    def own_function(config: dict[str, Any]) -> None:
        function = {"module": "builtins", "class_name": "function", "config": "exec"}
        layer_of(config, 3)["config"]["activation"] = function

    def code(config: dict[str, Any]) -> None:
        layer_of(config, 3)["class_name"] = "Lambda"

    def no_list(config: dict[str, Any]) -> None:
        config["config"]["layers"] = {"a": 1}

    def huge(config: dict[str, Any]) -> None:
        layer_of(config, 1)["config"]["units"] = 10**12

    cases = [
        (other_units, r"layer first \(LSTM\): recurrent_kernel: got shape \[8, 32\], expected 9 units"),
        (other_features, r"layer first \(LSTM\): weight_ih: got shape \[32, 3\], expected \[32, 5\]"),
        (without_sequences, r"layer first \(LSTM\): return_sequences=False before another"),
        (own_class, r"layer first \(LSTM\): a class of os.path; code of a model is not run"),
        (own_function, "activation: got .*function"),
        (code, r"\(Lambda\): is code, which is not run"),
        (no_list, "layers: expected a list"),
        (huge, "expected 1000000000000 units"),
    ]
    for number, (change, words) in enumerate(cases):
        path = rewritten(simple, tmp_path / f"{number}.keras", change)
        refused(tmp_path, words, import_keras, path, tmp_path / "m", **QUICK)


def test_archives_that_are_none_or_hostile(simple: Path, tmp_path: Path) -> None:
    def same(config: dict[str, Any]) -> None:
        del config["module"]

    data = simple.read_bytes()
    (tmp_path / "cut.keras").write_bytes(data[: len(data) // 2])
    refused(tmp_path, "not a .keras file", import_keras, tmp_path / "cut.keras", tmp_path / "m")
    (tmp_path / "text.keras").write_text("no model")
    refused(tmp_path, "neither a .keras file", import_keras, tmp_path / "text.keras", tmp_path / "m")
    refused(tmp_path, "no such file", import_keras, tmp_path / "none.keras", tmp_path / "m")
    path = rewritten(simple, tmp_path / "names.keras", same, **{"../../evil": b"x"})
    refused(tmp_path, r"\.\./\.\./evil: a name that points outside", import_keras, path, tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 10_000_000)
    refused(tmp_path, "unpacks from", import_keras, tmp_path / "bomb.keras", tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "less.keras", "w") as archive:
        archive.writestr("config.json", b"{}")
    refused(
        tmp_path, "has no metadata.json, expected a .keras file", import_keras, tmp_path / "less.keras", tmp_path / "m"
    )


def test_weights_that_are_elsewhere_or_larger_than_the_file(simple: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(simple) as archive:
        weights = archive.read("model.weights.h5")
    kernel = "layers/lstm/cell/vars/0"

    def missing(store: Any) -> None:
        del store[kernel]

    def outside(store: Any) -> None:
        del store[kernel]
        store[kernel] = h5py.ExternalLink("/etc/passwd", "/x")

    def wide(store: Any) -> None:
        del store[kernel]
        store.create_dataset(kernel, shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1, 1024))

    def spread(store: Any) -> None:
        del store[kernel]
        store.create_dataset(kernel, shape=(3, 32), dtype="f4", external=[("/etc/passwd", 0, 384)])

    def text(store: Any) -> None:
        del store[kernel]
        store[kernel] = "words"

    for number, (change, words) in enumerate(
        [
            (missing, r"layer first \(LSTM\): kernel: missing"),
            (outside, r"layer first \(LSTM\): kernel: missing|no such tensor"),
            (wide, "more than|expected numbers"),
            (spread, "more than the file holds"),
            (text, "expected numbers|kernel: missing"),
        ]
    ):
        buffer = io.BytesIO(weights)
        with h5py.File(buffer, "r+") as store:
            change(store)
        path = rewritten(
            simple, tmp_path / f"{number}.keras", lambda config: None, **{"model.weights.h5": buffer.getvalue()}
        )
        refused(tmp_path, words, import_keras, path, tmp_path / "m", **QUICK)


def test_a_damaged_h5_file(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    whole = tmp_path / "whole.h5"
    functional(Input((None, 3)), L.LSTM(4), L.Dense(1)).save(whole)
    data = whole.read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    refused(tmp_path, "not an HDF5 file|missing|no such", import_keras, tmp_path / "cut.h5", tmp_path / "m")
    model = filled(keras.Sequential([Input((None, 3)), L.LSTM(4)]))
    model.save_weights(tmp_path / "alone.weights.h5")
    refused(tmp_path, "only weights; save the model", import_keras, tmp_path / "alone.weights.h5", tmp_path / "m")
