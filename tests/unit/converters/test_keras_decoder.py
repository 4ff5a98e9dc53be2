"""Keras models whose states are inputs and outputs, as those of a decoder at inference, are traced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.engine.load import offline

from verification.parity.keras_models import filled
from verification.parity.trace_cases import keras_decoder

from .conftest import free_batch
from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str, "trace": True}
STEPS = 6

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Keras' and the exporter's own


def stepped(keras: Any, model: Any, inputs: Any, states: dict[str, int]) -> np.ndarray[Any, Any]:
    """Decodes as Keras' users do: calls the model for one time step, and gives it the states that it returned.

    states: by the inputs' names, the outputs that they are.
    """
    values = {one.name: np.zeros((1, *one.shape[1:]), "f4") for one in model.inputs if one.name in states}
    rows = []
    for step in inputs:
        given = [values.get(one.name, step[None, None]) for one in model.inputs]
        returned = [keras.ops.convert_to_numpy(value) for value in model(given)]
        values = {name: returned[at] for name, at in states.items()}
        rows.append(next(value for at, value in enumerate(returned) if at not in states.values())[0, 0])
    return np.stack(rows)


@free_batch
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_decoder_of_token_ids(keras: Any, suffix: str, tmp_path: Path) -> None:
    model, ids = keras_decoder(), np.random.default_rng(0).integers(0, 9, STEPS).astype("int32")
    model.save(tmp_path / f"m.{suffix}")
    imported = import_keras(tmp_path / f"m.{suffix}", tmp_path / "m", **QUICK)
    assert imported.parity.relative < 1e-5
    assert imported.parity.source == f"keras {keras.__version__} (torch, traced)"
    assert [(one.name, one.shape) for one in imported.bundle.spec.states] == [("h", (8,)), ("c", (8,)), ("g", (6,))]
    expected = stepped(keras, model, ids, {"h": 1, "c": 2, "g": 3})
    np.testing.assert_allclose(offline(tmp_path / "m", ids)["prediction"], expected, atol=1e-5)


@free_batch
def test_states_before_the_output_and_in_another_order(keras: Any, tmp_path: Path) -> None:
    """The graph says which output is which state. As many units as the trace has sessions are no batch."""
    from keras import Input, Model
    from keras import layers as L

    c, x, h = Input((11,), name="c"), Input((None, 2)), Input((11,), name="h")
    y, new_h, new_c = L.LSTM(11, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    model = filled(Model([c, x, h], [new_c, L.Dense(3)(y), new_h]))
    import_keras(model, tmp_path / "m", **QUICK)
    inputs = np.random.default_rng(0).standard_normal((STEPS, 2)).astype("f4")
    served = offline(tmp_path / "m", inputs)["prediction"]
    np.testing.assert_allclose(served, stepped(keras, model, inputs, {"c": 0, "h": 2}), atol=1e-5)


@free_batch
def test_inputs_without_names_and_a_layer_that_the_training_model_has_too(keras: Any, tmp_path: Path) -> None:
    """As in Keras' own example of a translator, and not saved yet."""
    from keras import Input, Model
    from keras import layers as L

    x, layer = Input((None, 2)), L.LSTM(8, return_sequences=True, return_state=True)
    _, *encoded = L.LSTM(8, return_state=True)(Input((None, 3)))
    layer(x, initial_state=encoded)
    y, *after = layer(x, initial_state=(before := [Input((8,)), Input((8,))]))
    imported = import_keras(filled(Model([x, *before], [L.Dense(3)(y), *after])), tmp_path / "m", **QUICK)
    assert imported.parity.relative < 1e-5
    assert [one.shape for one in imported.bundle.spec.states] == [(8,), (8,)]


@free_batch
def test_inputs_and_outputs_with_names(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    x, h = Input((None, 2), name="x"), Input((8,), name="h")
    y, after = L.GRU(8, return_sequences=True, return_state=True)(x, initial_state=h)
    imported = import_keras(filled(Model({"x": x, "h": h}, {"y": L.Dense(3)(y), "h": after})), tmp_path / "m", **QUICK)
    assert imported.parity.relative < 1e-5
    assert [(one.name, one.shape) for one in imported.bundle.spec.states] == [("h", (8,))]


def refusals() -> dict[str, tuple[Callable[[], Any], str]]:
    from keras import Input, Model
    from keras import layers as L

    x, h, g = Input((None, 3)), Input((4,), name="h"), Input((4,), name="g")

    def not_returned() -> Any:
        return Model([x, h], L.GRU(4, name="rnn")(x, initial_state=h))

    def not_an_output() -> Any:
        return Model([x, h], L.GRU(4, return_state=True, name="rnn")(x, initial_state=h)[0])

    def for_both() -> Any:
        return Model([x, h], L.LSTM(4, return_state=True, name="rnn")(x, initial_state=[h, h]))

    def changed() -> Any:
        y, state = L.GRU(4, return_state=True)(x, initial_state=L.Dense(4)(h))
        return Model([x, h], [y, state])

    def one_of_two() -> Any:
        y, new = L.GRU(4, return_state=True, return_sequences=True)(x, initial_state=h)
        return Model([x, h, g], [L.Dense(2)(y), new, L.Dense(4)(g)])

    return {
        "not returned": (not_returned, r"layer rnn: gets its initial state from an input, expected return_state=True"),
        "not an output": (not_an_output, "input h: is an initial state of layer rnn, expected the state that it"),
        "for both": (for_both, "input h: is an initial state of layer rnn, .* among the outputs of the model, once"),
        "changed": (changed, r"input h: got shape \[None, 4\], expected \[batch, time, .*must be the initial_state"),
        "one of two": (one_of_two, r"input g: got shape \[None, 4\], expected \[batch, time"),
    }


def test_states_that_do_not_come_back(keras: Any, tmp_path: Path) -> None:
    for make, words in refusals().values():
        refused(tmp_path, words, import_keras, make(), tmp_path / "m", **QUICK)
