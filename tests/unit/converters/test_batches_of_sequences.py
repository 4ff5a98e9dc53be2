"""A source that takes several sequences in one call gets all of one length together, and gives the values of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.converters.keras.file import read_keras
from cellkeeper_service.converters.keras.model import stack_of
from cellkeeper_service.converters.keras.source import KerasSource
from cellkeeper_service.converters.processing import Processed, Processing
from cellkeeper_service.converters.proof import run_whole
from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import Normalization

from verification.parity.keras_models import filled, sequential

from .conftest import free_batch
from .leftovers import refused

# Keras' own warnings while it saves
keras_warnings = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Sums:
    """Predicts the running sum, and counts its calls."""

    name, windowed = "sums", False

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []  # sequences, time steps

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self.batch([inputs])[0]

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        together = np.stack(sequences)
        self.calls.append(together.shape[:2])
        return [{"prediction": values} for values in together.cumsum(axis=1)]

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self.whole(inputs)


@pytest.mark.parametrize("processed", [False, True], ids=["alone", "with a normalization around it"])
def test_sequences_of_one_length_run_in_one_call(processed: bool) -> None:
    sums = Sums()
    source = Processed(sums, Processing(Normalization((2.0,), (4.0,)))) if processed else sums
    draw = np.random.default_rng(1)
    sequences = [draw.standard_normal((length, 1)).astype(np.float32) for length in (3, 1, 3, 7, 1, 3)]
    outputs = run_whole(source, sequences)
    assert sums.calls == [(2, 1), (3, 3), (1, 7)]
    for inputs, output in zip(sequences, outputs, strict=True):
        expected = ((inputs - 2.0) / 4.0 if processed else inputs).cumsum(axis=0)
        np.testing.assert_allclose(output["prediction"], expected, rtol=1e-5, atol=1e-6)


@keras_warnings
@pytest.mark.parametrize("every", [True, False], ids=["each time step", "the last time step"])
def test_keras_gives_each_sequence_of_a_batch_its_own_values(keras: Any, tmp_path: Path, every: bool) -> None:
    """Also where the sequences are masked at different time steps."""
    from keras import Input
    from keras import layers as L

    middle = L.GRU(4, return_sequences=True)
    model = sequential(Input((None, 3)), L.Masking(-1.0), middle, L.LSTM(5, return_sequences=every), L.Dense(2))
    model.save(tmp_path / "m.keras")
    file = read_keras(tmp_path / "m.keras")
    stack = stack_of(file)
    source = KerasSource(keras, file.path, stack)
    x = np.random.default_rng(2).standard_normal((4, 9, 3)).astype(np.float32)
    x[0, 3:5] = x[1, 0] = x[2, 8] = -1.0
    together = source.batch(list(x))
    for inputs, outputs in zip(x, together, strict=True):
        alone = keras.ops.convert_to_numpy(model(inputs[None]))[0]
        values = outputs["prediction"] if every else outputs["prediction"][-1]
        np.testing.assert_allclose(values, alone, rtol=1e-5, atol=1e-6)
        assert outputs["prediction"].shape == (9, 2)


@free_batch
@keras_warnings
def test_a_traced_keras_model_whose_sequences_depend_on_each_other_is_refused(keras: Any, tmp_path: Path) -> None:
    """So the rest may run together in the comparison."""
    from keras import Input, Model, ops
    from keras import layers as L

    x = Input((None, 3))
    y = L.LSTM(4, return_sequences=True)(x)
    model = filled(Model(x, y + ops.mean(y, axis=0, keepdims=True)))
    words = "rows of a batch depend on each other: .*reduces over axis 0, which is the batch"
    refused(tmp_path, words, import_keras, model, tmp_path / "m", trace=True, max_batch=8, report=str)
