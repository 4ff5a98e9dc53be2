"""Random Keras models, Sequential and functional, whose layers see only one time step and their own past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from verification.parity.keras_models import filled

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]

ACTIVATIONS = (
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
)
CELL_ACTIVATIONS = ("tanh", "tanh", "sigmoid", "softsign", "hard_sigmoid", "elu", "gelu", "relu6", "silu", "hard_tanh")
GATES = ("sigmoid", "sigmoid", "hard_sigmoid")
WIDTHS = st.integers(1, 20)


def random_model(draw: Draw) -> Any:
    """Returns a model with random weights; [B, T, 1 to 5] -> [B, T, units] or [B, units]. draw: of st.data()."""
    from keras import Input, Model, Sequential

    features = draw(st.integers(1, 5))
    sequences = draw(st.booleans())
    if draw(st.booleans()):
        return filled(Sequential([Input((None, features)), *_chain(draw, sequences)]))
    x = Input((None, features))
    return filled(Model(x, _graph(draw, x, sequences)))


def _one(draw: Draw, choices: Sequence[T]) -> T:
    chosen: T = draw(st.sampled_from(choices))
    return chosen


def _recurrent(draw: Draw, units: int, sequences: bool) -> Any:
    from keras import layers as L

    words = {"activation": _one(draw, CELL_ACTIVATIONS), "use_bias": draw(st.booleans())}
    gated = {**words, "recurrent_activation": _one(draw, GATES)}
    kind = _one(draw, ("lstm", "gru", "rnn", "cell", "cells"))
    if kind == "lstm":
        return L.LSTM(units, return_sequences=sequences, **gated)
    if kind == "gru":
        return L.GRU(units, return_sequences=sequences, reset_after=draw(st.booleans()), **gated)
    if kind == "rnn":
        return L.SimpleRNN(units, return_sequences=sequences, **words)
    if kind == "cell":
        return L.RNN(L.LSTMCell(units, **gated), return_sequences=sequences)
    return L.RNN([L.GRUCell(draw(WIDTHS)), L.LSTMCell(units, **gated)], return_sequences=sequences)


def _stateless(draw: Draw) -> Any:
    from keras import layers as L

    makers: list[Callable[[], Any]] = [
        lambda: L.Dense(draw(WIDTHS), activation=_one(draw, ACTIVATIONS), use_bias=draw(st.booleans())),
        lambda: L.Activation(_one(draw, ACTIVATIONS)),
        lambda: L.LayerNormalization(center=draw(st.booleans()), scale=draw(st.booleans())),
        lambda: L.BatchNormalization(),
        lambda: L.Rescaling(draw(st.floats(0.25, 2.0)), draw(st.floats(-1.0, 1.0))),
        lambda: L.ReLU(max_value=_one(draw, (None, 6.0))),
        lambda: L.LeakyReLU(),
        lambda: L.ELU(),
        lambda: L.Softmax(),
        lambda: L.Dropout(0.2),
        lambda: L.GaussianNoise(0.1),
    ]
    return _one(draw, makers)()


def _chain(draw: Draw, sequences: bool) -> list[Any]:
    count = draw(st.integers(1, 3))
    layers: list[Any] = []
    for number in range(count):
        layers += [_stateless(draw) for _ in range(draw(st.integers(0, 2)))]
        layers.append(_recurrent(draw, draw(WIDTHS), sequences or number < count - 1))
    return [*layers, *(_stateless(draw) for _ in range(draw(st.integers(0, 2))))]


def _graph(draw: Draw, x: Any, sequences: bool) -> Any:
    from keras import layers as L

    values = [x]
    for _ in range(draw(st.integers(1, 4))):
        source = _one(draw, values)
        way = _one(draw, ("stateless", "recurrent", "residual", "merge"))
        if way == "stateless":
            values.append(_stateless(draw)(source))
        elif way == "recurrent":
            values.append(_recurrent(draw, draw(WIDTHS), True)(source))
        elif way == "residual":
            values.append(L.Add()([source, _recurrent(draw, source.shape[-1], True)(source)]))
        else:
            other = L.Dense(source.shape[-1])(_one(draw, values))
            merge = _one(draw, (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate))
            values.append(merge()([source, other]))
    return L.Dense(draw(WIDTHS))(_recurrent(draw, draw(WIDTHS), sequences)(values[-1]))
