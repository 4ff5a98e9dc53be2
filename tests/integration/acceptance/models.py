"""The models that the acceptance tests serve."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from testing.bundles import counting_bundle, make_bundle

from .sequences import Array, Model

FEATURES = 3
VOCABULARY = 50


def normal(numbers: np.random.Generator, steps: int) -> Array:
    return numbers.standard_normal((steps, FEATURES)).astype(np.float32)


def with_gaps(numbers: np.random.Generator, steps: int) -> Array:
    """Returns inputs with a third of the values missing."""
    values = normal(numbers, steps)
    values[numbers.random(values.shape) < 1 / 3] = np.nan
    return values


def tokens(numbers: np.random.Generator, steps: int) -> Array:
    return numbers.integers(0, VOCABULARY, steps, dtype=np.int32)


def small_counts(numbers: np.random.Generator, steps: int) -> Array:
    return numbers.integers(1, 100, (steps, 1)).astype(np.float32)


def every_kind(folder: Path) -> list[tuple[Path, Model]]:
    """Returns LSTMs of three sizes, both GRUs, both RNNs, a model of tokens, and one that holds missing values."""
    gaps = {"kind": "features", "missing": {"policy": "hold", "value": 0.5}}
    ids = {"kind": "tokens", "vocabulary": VOCABULARY, "embedding_size": FEATURES}
    kinds = [
        (make_bundle(folder / "a", name="lstm-1x64", hidden_size=64), normal),
        (make_bundle(folder / "b", name="lstm-2x128", hidden_size=128, num_layers=2, head=(16, 2)), normal),
        (make_bundle(folder / "c", name="lstm-2x512", hidden_size=512, num_layers=2), normal),
        (make_bundle(folder / "d", name="gru-after", cell="gru", hidden_size=256, num_layers=2), normal),
        (make_bundle(folder / "e", name="gru-before", cell="gru", hidden_size=256, reset_after=False), normal),
        (make_bundle(folder / "f", name="rnn-tanh", cell="rnn_tanh", hidden_size=256, num_layers=2), normal),
        (make_bundle(folder / "g", name="rnn-relu", cell="rnn_relu", hidden_size=192, head=(4,)), normal),
        (make_bundle(folder / "h", name="tokens", cell="gru", hidden_size=64, head=(VOCABULARY,), input=ids), tokens),
        (make_bundle(folder / "i", name="hold", hidden_size=128, num_layers=2, input=gaps), with_gaps),
    ]
    return [(bundle, Model(bundle, draw)) for bundle, draw in kinds]


def counting_and_lstm(folder: Path) -> list[tuple[Path, Model]]:
    """Returns a model whose arithmetic shows what was lost or doubled, and one whose bits do."""
    counting = counting_bundle(folder / "counting")
    lstm = make_bundle(folder / "lstm", name="lstm-2x128", hidden_size=128, num_layers=2, head=(16, 1))
    return [(counting, Model(counting, small_counts)), (lstm, Model(lstm, normal))]
