"""Layers of Keras that cannot be streamed or kept are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.converters.keras.source import KerasSource
from cellkeeper_service.converters.stack import Stack

from .leftovers import refused

# Keras' own warnings while it saves, and those about onnxruntime's and h5py's extension types
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


def refusals() -> dict[str, tuple[Callable[[], Any], str]]:
    from keras import Input, Model, Sequential, ops
    from keras import layers as L

    x = Input((None, 3))

    def merged() -> Any:
        return Model(x, L.Add(name="both")([L.LSTM(4, return_sequences=True)(x), L.GRU(4)(x)[:, None]]))

    def last_and_every() -> Any:
        last = L.GRU(4, name="ended")(x)
        return Model(x, L.Add(name="both")([L.LSTM(4, return_sequences=True)(x), L.Dropout(0.1)(last)]))

    def constant() -> Any:
        return Model(x, L.LSTM(4)(x) + 1.0)

    def given_state() -> Any:
        return Model(x, L.GRU(4, name="begun")(x, initial_state=ops.ones((1, 4))))

    def given_mask() -> Any:
        mask = ops.convert_to_tensor([[True, False, True]])
        return Model(x, L.GRU(4, name="begun")(x, mask=mask))

    def averaged() -> Any:
        y = L.LSTM(4, return_sequences=True)(x)
        return Model(x, ops.average(y, axis=-1, weights=L.Dense(4)(x)))

    def over_time() -> Any:
        y = L.LSTM(4, return_sequences=True)(x)
        return Model(x, L.Concatenate(axis=1, name="longer")([y, y]))

    def masked_branches() -> Any:
        y = L.Masking()(x)
        return Model(x, L.Add()([L.LSTM(3, return_sequences=True)(y), y]))

    def slopes() -> Any:
        fixed = Input((6, 3))
        return Model(fixed, L.PReLU(name="slope")(L.LSTM(4, return_sequences=True)(fixed)))

    def with_states() -> Any:
        _, h, c = L.LSTM(4, return_state=True)(x)
        return Model(x, L.LSTM(4, name="second")(x, initial_state=[h, c]))

    def returned() -> Any:
        return Model(x, L.LSTM(4, return_state=True, name="gives")(x)[1])

    def attention() -> Any:
        y = L.LSTM(4, return_sequences=True)(x)
        return Model(x, L.Attention(name="look")([y, y]))

    def twice() -> Any:
        layer = L.GRU(3, return_sequences=True, name="again")
        return Model(x, layer(layer(x)))

    def other_mask() -> Any:
        return Model(x, L.LSTM(4, name="masked")(x, mask=ops.any(ops.greater(x, 0.0), axis=-1)))

    def two_inputs() -> Any:
        a, b = Input((None, 3), name="a"), Input((None, 2), name="b")
        return Model([a, b], L.LSTM(4)(L.Concatenate()([a, b])))

    def two_outputs() -> Any:
        y = L.LSTM(4)(x)
        return Model(x, [L.Dense(1)(y), L.Dense(2)(y)])

    def chain(*layers: Any) -> Callable[[], Any]:
        return lambda: Sequential([Input((None, 3)), *layers])

    return {
        "bidirectional": (
            chain(L.Bidirectional(L.LSTM(4), name="both_ways")),
            r"both_ways \(Bidirectional\): the backward",
        ),
        "backwards": (chain(L.LSTM(4, go_backwards=True, name="back")), r"back \(LSTM\): go_backwards"),
        "convolution": (chain(L.Conv1D(4, 3, name="conv"), L.LSTM(4)), r"conv \(Conv1D\): looks at a window"),
        "convolution with steps": (
            chain(L.Conv1D(4, 3, padding="causal", strides=2, name="conv"), L.LSTM(4)),
            r"conv \(Conv1D\): strides: got 2, expected 1",
        ),
        "softmax of a masked value": (
            chain(L.Masking(), L.LSTM(4, return_sequences=True), L.Softmax(name="soft")),
            r"soft \(Softmax\): takes the mask .*; expected Activation\('softmax'\)",
        ),
        "softmax of a masked token's value": (
            lambda: Sequential(
                [Input((None,)), L.Embedding(5, 3, mask_zero=True), L.GRU(4, return_sequences=True), L.Softmax()]
            ),
            r"\(Softmax\): takes the mask .*; expected Activation\('softmax'\)",
        ),
        "softmax of each masked step": (
            chain(L.Masking(), L.GRU(4, return_sequences=True), L.TimeDistributed(L.Softmax(), name="each")),
            r"each \(TimeDistributed\): takes the mask .*; expected Activation\('softmax'\)",
        ),
        "pooling": (
            chain(L.LSTM(4, return_sequences=True), L.GlobalAveragePooling1D(name="p")),
            r"p \(Global.*whole sequence",
        ),
        "repeat": (chain(L.LSTM(4), L.RepeatVector(5, name="r"), L.LSTM(4)), r"r \(RepeatVector\): repeats"),
        "unknown": (
            chain(L.LSTM(4), L.GroupNormalization(2, name="gn")),
            r"gn \(GroupNormalization\): not a layer that the import reads",
        ),
        "nested": (
            chain(Sequential([L.LSTM(4)], name="inner")),
            r"inner \(Sequential\): not a layer that the import reads",
        ),
        "half": (chain(L.LSTM(4, dtype="float16", name="half")), r"half \(LSTM\): computes in float16"),
        "activation": (chain(L.LSTM(4, activation="celu", name="odd")), r"odd \(LSTM\): activation: got 'celu'"),
        "no rnn": (chain(L.Dense(4)), "has no recurrent layer"),
        "merged": (merged, r"\(GetItem\): not a layer that the import reads"),
        "last": (last_and_every, r"both \(Add\): merges every time step with the last one of ended"),
        "constant": (constant, r"\(Add\): takes \['lstm.*'\], expected two or more layers"),
        "given state": (given_state, r"begun \(GRU\): is called with a constant as initial_state, .*; pass --trace"),
        "given mask": (given_mask, r"begun \(GRU\): is called with a constant as mask, .*; pass --trace"),
        "average": (averaged, r"\(Average\): the function keras.ops.average, expected the layer"),
        "time": (over_time, r"longer \(Concatenate\): axis: got 1, expected -1"),
        "masked branches": (masked_branches, "masks in a model with branches"),
        "slopes": (slopes, r"slope \(PReLU\): alpha: got shape \[6, 4\], expected one slope for all time steps"),
        "cell softmax": (
            chain(L.LSTM(4, activation="softmax", name="soft")),
            r"soft \(LSTM\): activation softmax, expected one of",
        ),
        "states": (with_states, r"second \(LSTM\): takes \[.*initial states from other layers"),
        "returned": (returned, r"gives \(LSTM\): its returned state is used"),
        "attention": (attention, r"look \(Attention\): (takes|needs the whole)"),
        "twice": (twice, r"again \(GRU\): is used more than once, expected each layer once; pass --trace"),
        "mask": (other_mask, "a mask that does not come from an Embedding or a Masking layer|takes"),
        "inputs": (two_inputs, r"input_layers: got \['a', 'b'\], expected one: .*; pass --trace"),
        "outputs": (two_outputs, r"output_layers: got \[.*\], expected one: .*; pass --trace"),
    }


def test_what_cannot_be_streamed_is_refused_by_name(keras: Any, tmp_path: Path) -> None:
    for name, (make, words) in refusals().items():
        path = tmp_path / f"{name}.keras"
        make().save(path)
        refused(tmp_path, words, import_keras, path, tmp_path / "m", **QUICK)


def test_lora_weights_that_are_not_added_are_refused(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Sequential
    from keras import layers as L

    model = Sequential([Input((None, 3)), L.LSTM(4), L.Dense(2, name="tuned")])
    model.layers[1].enable_lora(1)
    model.layers[1].lora_kernel_b.assign([[1.0, 2.0]])
    model.save(tmp_path / "apart.h5")
    words = r"tuned \(Dense\): lora_kernel_a: LoRA weights apart .*; save the model as .keras"
    refused(tmp_path, words, import_keras, tmp_path / "apart.h5", tmp_path / "m", **QUICK)
    model.save(tmp_path / "added.keras")
    assert import_keras(tmp_path / "added.keras", tmp_path / "m", **QUICK).parity.relative < 1e-5


def test_a_model_that_fails_in_keras_is_refused_in_a_line(keras: Any, tmp_path: Path) -> None:
    """A softmax takes the mask for its own, which has other axes."""
    from keras import Input, Sequential
    from keras import layers as L

    path = tmp_path / "masked.keras"
    Sequential([Input((None, 3)), L.Masking(), L.GRU(4, return_sequences=True), L.Softmax()]).save(path)
    source = KerasSource(keras, path, Stack(3, ()))
    words = r"^keras .*: fails on sequences of 2 time steps \(Exception encountered when calling Softmax\.call"
    refused(tmp_path, words, source.whole, np.zeros((2, 3), np.float32))
