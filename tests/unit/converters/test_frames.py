"""Models whose time steps are frames with several axes: Keras' and PyTorch's ConvLSTM, with states of that size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_keras, import_torch
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import Normalization

from verification.parity.trace_cases import ConvLstm, keras_frames

from .conftest import free_batch
from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
FRAMES = np.random.default_rng(2).standard_normal((9, 5, 4, 2)).astype(np.float32)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Keras' and the exporter's own


@free_batch
def test_a_conv_lstm_of_keras(keras: Any, tmp_path: Path) -> None:
    model = keras_frames(2)
    model.save(tmp_path / "m.keras")
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK)
    assert imported.parity.exact
    assert imported.parity.rows_proved
    assert imported.bundle.spec.input.shape == (5, 4, 2)
    assert [state.shape for state in imported.bundle.spec.states] == [(5, 4, 3), (5, 4, 3)]
    expected = np.asarray(keras.ops.convert_to_numpy(model(FRAMES[None], training=False)))[0]
    assert np.abs(offline(tmp_path / "m", FRAMES)["prediction"] - expected).max() < 1e-6


def test_a_conv_lstm_cell_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    cell, zeros = ConvLstm().eval(), torch.zeros(2, 3, 5, 4)
    frames = torch.tensor(FRAMES[:, None, :, :, 0])
    imported = import_torch(
        cell, tmp_path / "m", example=frames[:2], layout="step", states={"state": (zeros, zeros)}, **QUICK
    )
    assert imported.parity.exact
    assert imported.parity.rows_proved
    assert imported.bundle.spec.input.shape == (1, 5, 4)
    assert [state.shape for state in imported.bundle.spec.states] == [(3, 5, 4), (3, 5, 4)]
    state, expected = (zeros[:1], zeros[:1]), []
    with torch.no_grad():
        for frame in frames:
            y, state = cell(frame[None], state)
            expected.append(y[0].numpy())
    assert np.abs(offline(tmp_path / "m", frames.numpy())["prediction"] - np.stack(expected)).max() < 1e-6


def test_frames_that_are_refused(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    def flattened() -> Any:
        x = Input((None, 4, 2))
        return Model(x, L.Flatten(name="flat")(L.ConvLSTM1D(2, 3, return_sequences=True)(x)))

    def of_any_size() -> Any:
        x = Input((None, None, 2))
        return Model(x, L.LSTM(3)(L.TimeDistributed(L.GlobalMaxPooling1D())(x)))

    def backwards() -> Any:
        x = Input((None, 4, 2))
        return Model(x, L.ConvLSTM1D(2, 3, go_backwards=True, name="back")(x))

    def both_ways() -> Any:
        x = Input((None, 4, 2))
        return Model(x, L.TimeDistributed(L.Bidirectional(L.LSTM(2), name="both"))(x))

    for model, words in [
        (flattened, r"flat \(Flatten\): needs the whole sequence"),
        (of_any_size, r"got shape \[None, None, None, 2\], expected \[batch, time, features ...\] with fixed sizes"),
        (backwards, r"back \(ConvLSTM1D\): go_backwards"),
        (both_ways, r"both \(Bidirectional\)"),
    ]:
        refused(tmp_path, words, import_keras, model(), tmp_path / "m", trace=True, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"layout: got an example of \[2, 1, 5, 4\], the time axis is ambiguous; pass layout"),
        ({"layout": "step", "normalization": Normalization((0.0,), (2.0,))}, "time steps of shape .*within the model"),
        (
            {"layout": "step", "normalization": Normalization((0.0,) * 20, (2.0,) * 20)},
            r"normalization: got one for time steps of shape \[1, 5, 4\], expected it within the model",
        ),
    ],
)
def test_examples_of_frames_that_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    zeros = torch.zeros(2, 3, 5, 4)
    options = {"example": torch.zeros(2, 1, 5, 4), "states": {"state": (zeros, zeros)}, **options, **QUICK}
    refused(tmp_path, words, import_torch, ConvLstm(), tmp_path / "m", **options)
