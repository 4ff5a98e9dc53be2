"""Layers that Keras 2 wrote otherwise than Keras 3, and computes otherwise. The reference follows the equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.engine.load import offline

from testing.bundles import Array

from .keras_files import write_keras2
from .leftovers import refused

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
QUICK: dict[str, Any] = {"max_batch": 4, "report": str}
DRAW = np.random.default_rng(3)
X = DRAW.standard_normal((9, 3)).astype(np.float32)
UNITS = 4
NO_TIME_MAJOR = {"time_major": False}  # written by Keras 2, unknown to Keras 3


def drawn(*shape: int) -> Array:
    return DRAW.uniform(-0.7, 0.7, shape)


def sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))


def simple_rnn(inputs: int, **config: Any) -> tuple[str, dict[str, Any], dict[str, Array]]:
    weights = {"kernel": drawn(inputs, UNITS), "recurrent_kernel": drawn(UNITS, UNITS), "bias": drawn(UNITS)}
    return "SimpleRNN", {"units": UNITS, "return_sequences": True, **NO_TIME_MAJOR, **config}, weights


def rnn_step(weights: dict[str, Array], x: Array, h: Array) -> Array:
    return np.asarray(np.tanh(x @ weights["kernel"] + h @ weights["recurrent_kernel"] + weights["bias"]))


def served(tmp_path: Path, x: Array = X) -> Array:
    import_keras(tmp_path / "old.h5", tmp_path / "m", **QUICK)
    return offline(tmp_path / "m", x)["prediction"]


def cudnn(kind: str, gates: int) -> tuple[tuple[str, dict[str, Any], dict[str, Array]], list[Array]]:
    """Returns a layer with its weights as cuDNN reads them: each gate's matrices [units, inputs], in whatever shape
    Keras has them, then a bias for the input and one for the state. Also the matrices and biases."""
    into, back, biases = drawn(gates, UNITS, 3), drawn(gates, UNITS, UNITS), drawn(2, gates, UNITS)
    weights = {
        "kernel": np.hstack([gate.reshape(3, UNITS) for gate in into]),
        "recurrent_kernel": np.hstack(list(back)),
        "bias": biases.reshape(-1),
    }
    return (kind, {"units": UNITS, "return_sequences": True, "stateful": False}, weights), [into, back, *biases]


def test_the_weights_of_cudnn_lstm(tmp_path: Path) -> None:
    layer, (into, back, first, second) = cudnn("CuDNNLSTM", 4)
    write_keras2(tmp_path / "old.h5", [layer])
    h, c, expected = np.zeros(UNITS), np.zeros(UNITS), []
    for x in X:
        i, f, g, o = into @ x + first + back @ h + second
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        expected.append(h)
    np.testing.assert_allclose(served(tmp_path), expected, rtol=1e-4, atol=1e-6)


def test_the_weights_of_cudnn_gru(tmp_path: Path) -> None:
    layer, (into, back, first, second) = cudnn("CuDNNGRU", 3)
    write_keras2(tmp_path / "old.h5", [layer])
    h, expected = np.zeros(UNITS), []
    for x in X:
        (z, r, n), (of_z, of_r, of_n) = into @ x + first, back @ h + second
        z, r = sigmoid(z + of_z), sigmoid(r + of_r)
        h = z * h + (1 - z) * np.tanh(n + r * of_n)
        expected.append(h)
    np.testing.assert_allclose(served(tmp_path), expected, rtol=1e-4, atol=1e-6)


def test_weights_of_cudnn_that_do_not_fit(tmp_path: Path) -> None:
    layer, _ = cudnn("CuDNNGRU", 3)
    layer[2]["bias"] = layer[2]["bias"][: 3 * UNITS]
    write_keras2(tmp_path / "old.h5", [layer])
    words = r"\(CuDNNGRU\): bias: got shape \[12\], expected \[24\]"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", **QUICK)


@pytest.mark.parametrize("kind", ["Rescaling", "Normalization"])
def test_a_layer_that_ends_a_mask(kind: str, tmp_path: Path) -> None:
    """Keras 2 passes no mask through these layers, Keras 3 does. Masked time steps are zeros."""
    first, second = simple_rnn(3), simple_rnn(UNITS)
    by = (
        {"scale": 2.0, "offset": 0.5}
        if kind == "Rescaling"
        else {"axis": [2], "mean": [-0.25] * 4, "variance": [0.25] * 4}
    )
    write_keras2(tmp_path / "old.h5", [("Masking", {"mask_value": -1.0}, {}), first, (kind, by, {}), second])
    x = X.copy()
    x[[0, 4, 5]] = -1.0
    one, two, expected = np.zeros(UNITS), np.zeros(UNITS), []
    for number, row in enumerate(x):
        one = one if number in (0, 4, 5) else rnn_step(first[2], row, one)
        two = rnn_step(second[2], 2.0 * one + 0.5, two)
        expected.append(two)
    np.testing.assert_allclose(served(tmp_path, x), expected, rtol=1e-4, atol=1e-6)


def test_whether_a_layer_ends_a_mask_is_not_guessed(tmp_path: Path) -> None:
    layers = [("Masking", {"mask_value": -1.0}, {}), ("Rescaling", {"scale": 2.0, "offset": 0.5}, {}), simple_rnn(3)]
    write_keras2(tmp_path / "old.h5", layers, version="")
    words = r"\(Rescaling\): a mask before it, which Keras 2 ends there .*, in a file without keras_version"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", **QUICK)


def test_keras_3_is_no_reference_for_a_mask_that_keras_2_ends(tmp_path: Path) -> None:
    """It reads this file, which lacks time_major as those of Keras 2.3 do, and would pass the mask on."""
    rnn = simple_rnn(3)
    del rnn[1]["time_major"]
    layers = [("Masking", {"mask_value": -1.0}, {}), ("Rescaling", {"scale": 2.0, "offset": 0.5}, {}), rnn]
    write_keras2(tmp_path / "old.h5", layers, version="2.3.1")
    source = import_keras(tmp_path / "old.h5", tmp_path / "m", **QUICK).parity.source
    assert "keras 3 computes masks behind Rescaling of Keras 2 otherwise" in source


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization"])
@pytest.mark.parametrize("after", ["the last time step", "each time step"])
def test_the_axis_of_a_normalization(kind: str, after: str, tmp_path: Path) -> None:
    """Keras 2 writes it as it counts: 1 after the last time step and within TimeDistributed, else 2."""
    every = after == "each time step"
    rnn = simple_rnn(3, return_sequences=every)
    weights = {"gamma": drawn(UNITS), "beta": drawn(UNITS)}
    if kind == "BatchNormalization":
        weights |= {"moving_mean": drawn(UNITS), "moving_variance": np.abs(drawn(UNITS)) + 0.1}
    config: dict[str, Any] = {"axis": [1], "epsilon": 0.001}
    layer = {"class_name": kind, "config": {"name": "inner", **config}}
    write_keras2(
        tmp_path / "old.h5", [rnn, ("TimeDistributed", {"layer": layer}, weights) if every else (kind, config, weights)]
    )
    h = np.zeros(UNITS)
    for x in X:
        h = rnn_step(rnn[2], x, h)
    mean, variance = weights.get("moving_mean", h.mean()), weights.get("moving_variance", h.var())
    expected = (h - mean) / np.sqrt(variance + 0.001) * weights["gamma"] + weights["beta"]
    np.testing.assert_allclose(served(tmp_path)[-1], expected, rtol=1e-4, atol=1e-5)


def test_a_normalization_over_time_is_refused(tmp_path: Path) -> None:
    weights = dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), np.ones(UNITS))
    write_keras2(tmp_path / "old.h5", [simple_rnn(3), ("BatchNormalization", {"axis": [1]}, weights)])
    words = r"\(BatchNormalization\): axis: got \[1\], expected -1"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", **QUICK)


def test_time_major_says_what_to_do(tmp_path: Path) -> None:
    write_keras2(tmp_path / "old.h5", [simple_rnn(3, time_major=True)])
    words = r"time_major: got true, expected false; make the model again without it.*set_weights"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", **QUICK)


@pytest.mark.parametrize("trace", [False, True])
def test_a_file_of_keras_2_that_needs_a_trace(trace: bool, keras: Any, tmp_path: Path) -> None:
    """Keras 3 does not load it, so the advice to pass --trace alone would lead nowhere."""
    write_keras2(tmp_path / "old.h5", [simple_rnn(3), ("ThresholdedReLU", {"theta": 0.2}, {})])
    cause = r"Keras cannot load it \(.*time_major" if trace else "not a layer that the import reads"
    words = cause + ".*; Keras 3, which traces, does not read most files of Keras 2: .*set_weights.*--trace$"
    refused(tmp_path, words, import_keras, tmp_path / "old.h5", tmp_path / "m", trace=trace, **QUICK)
