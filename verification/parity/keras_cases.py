"""Keras models of every kind that can be imported, as .keras and as .h5 files."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .case import Case
from .keras_models import filled, functional, saved, sequential
from .layer_cases import keras_layer_cases
from .trace_cases import keras_trace_cases


def normalization() -> Any:
    """Returns a layer that is adapted to features with means and spreads far from 0 and 1."""
    from keras import layers

    layer = layers.Normalization()
    draw = np.random.default_rng(2)
    layer.adapt(draw.normal([300.0, -2.0, 0.01], [20.0, 0.5, 0.002], (400, 3)).astype(np.float32))
    return layer


@cache
def keras_cases() -> list[Case]:
    """Returns the cases. Needs Keras 3 with a backend."""
    from keras import Input
    from keras import layers as L

    features = Input((None, 3))
    masked = functional(
        Input((None,), dtype="int32"),
        L.Embedding(20, 12, mask_zero=True),
        L.GRU(16, return_sequences=True),
        L.LSTM(24),
        L.Dense(20, activation="softmax"),
    )
    stateful = sequential(
        Input(batch_shape=(4, 10, 3)),
        normalization(),
        L.LSTM(32, stateful=True, return_sequences=True),
        L.LSTM(32, stateful=True),
        L.Dense(2),
    )
    odd = sequential(
        Input((None, 3)),
        L.LSTM(24, activation="relu", recurrent_activation="hard_sigmoid"),
        L.BatchNormalization(),
        L.Dense(8),
        L.LeakyReLU(),
        L.Dense(1),
    )
    returned = L.LSTM(16, return_sequences=True, return_state=True)
    import keras

    chain = filled(keras.Model(features, L.TimeDistributed(L.Dense(2))(returned(features)[0])))
    after = sequential(Input((None, 3)), L.GRU(48, return_sequences=True), L.GRU(48), L.Dropout(0.3), L.Dense(1))
    before = sequential(Input((None, 3)), L.GRU(40, reset_after=False, return_sequences=True), L.Dense(2))
    masking = sequential(
        Input((None, 3)),
        L.Masking(-1.0),
        L.LSTM(16, return_sequences=True),
        L.SimpleRNN(12, return_sequences=True, zero_output_for_mask=True),
        L.TimeDistributed(L.Dense(3, activation="tanh")),
    )
    return [
        Case("keras", "LSTM 64, Dense (.keras)", saved(sequential(Input((None, 3)), L.LSTM(64), L.Dense(1)))),
        Case(
            "keras",
            "LSTM 64, no bias, Dense (.h5)",
            saved(sequential(Input((None, 3)), L.LSTM(64, use_bias=False), L.Dense(1)), ".h5"),
        ),
        Case("keras", "GRU 2x48, Dropout, Dense (.keras)", saved(after)),
        Case("keras", "GRU 40, reset_after=False, Dense (.keras)", saved(before)),
        Case("keras", "GRU 40, reset_after=False, Dense (.h5)", saved(before, ".h5")),
        Case(
            "keras",
            "SimpleRNN 2x32, relu, Dense (.keras)",
            saved(
                sequential(
                    Input((None, 3)),
                    L.SimpleRNN(32, activation="relu", return_sequences=True),
                    L.SimpleRNN(32, activation="relu"),
                    L.Dense(2),
                )
            ),
        ),
        Case("keras", "Normalization, LSTM 2x32, stateful, fixed batch (.keras)", saved(stateful)),
        Case("keras", "Normalization, LSTM 2x32, stateful, fixed batch (.h5)", saved(stateful, ".h5")),
        Case("keras", "functional: LSTM 16 with return_state, TimeDistributed(Dense) (.keras)", saved(chain)),
        Case("keras", "functional: Embedding with mask_zero, GRU 16, LSTM 24, Dense softmax (.keras)", saved(masked)),
        Case(
            "keras",
            "Masking, LSTM 16, SimpleRNN 12 with zeros for masked steps, TimeDistributed(Dense) (.h5)",
            saved(masking, ".h5"),
        ),
        Case(
            "keras",
            "LSTM 24 with relu and hard_sigmoid, BatchNormalization, Dense, LeakyReLU, Dense (.keras)",
            saved(odd),
        ),
        *keras_layer_cases(),
        *keras_trace_cases(),
    ]
