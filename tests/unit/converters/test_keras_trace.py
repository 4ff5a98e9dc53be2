"""On request, Keras traces what is not read. What cannot be streamed is refused, and no custom code is run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.converters import ImportRefused, import_keras
from cellkeeper_service.converters.command import run_import
from cellkeeper_service.model.bundle import WEIGHTS_FILE
from safetensors.numpy import load_file

from verification.parity.keras_models import filled, sequential
from verification.parity.trace_cases import keras_branches

from .conftest import free_batch
from .keras_files import rewritten
from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Keras' and the exporter's own


@free_batch
def test_a_functional_model_of_layers_that_are_not_read(keras: Any, tmp_path: Path) -> None:
    model = keras_branches()
    model.save(tmp_path / "m.keras")
    words = "output_layers: got .*expected one"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", **QUICK)
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK)
    assert imported.parity.source == f"keras {keras.__version__} (torch, traced)"
    assert imported.parity.relative < 1e-5
    assert imported.parity.exact
    assert [output.name for output in imported.bundle.spec.outputs] == ["prediction", "output_1"]
    assert sorted(state.shape[-1] for state in imported.bundle.spec.states) == [16, 16, 16, 32, 32]


@free_batch
def test_dropout_within_recurrent_layers(keras: Any, tmp_path: Path) -> None:
    """Keras draws the masks of their dropout in inference too, and does not use them."""
    layers = keras.layers
    inner = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, return_sequences=True, dropout=0.3)])
    stacked = [layers.GRUCell(3, recurrent_dropout=0.2), layers.LSTMCell(2, dropout=0.1)]
    model = filled(keras.Sequential([keras.Input((None, 3)), inner, layers.RNN(stacked)]))
    model.save(tmp_path / "m.keras")
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK)
    assert imported.parity.relative < 1e-5


@free_batch
def test_a_stateful_layer_that_is_used_twice_is_refused(keras: Any, tmp_path: Path) -> None:
    """Its second use begins with the state at the end of its first, and so at the end of the sequence."""
    x, layer = keras.Input((None, 2), batch_size=1), keras.layers.GRU(2, return_sequences=True, stateful=True)
    words = r"gru\w* \(GRU\): is stateful and used twice, .* make it stateful=False"
    refused(tmp_path, words, import_keras, keras.Model(x, layer(layer(x))), tmp_path / "m", trace=True, **QUICK)
    once = filled(keras.Model(x, layer(x)))
    assert import_keras(once, tmp_path / "m", trace=True, **QUICK).parity.relative < 1e-5


@free_batch
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_named_inputs_in_any_order(keras: Any, names: tuple[str, str], tmp_path: Path) -> None:
    """Keras takes them in a dict of the same order only, and warns of anything else."""
    from keras import Input, Model
    from keras import layers as L

    inputs = {name: Input((None, units), name=name) for name, units in zip(names, (3, 2), strict=True)}
    model = filled(Model(inputs, {"y": L.LSTM(4)(L.Concatenate()(list(inputs.values())))}))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*structure of `inputs`")
        imported = import_keras(model, tmp_path / "m", trace=True, **QUICK)
    assert imported.parity.relative < 1e-5
    assert {one.name: one.shape for one in imported.bundle.spec.inputs} == {names[0]: (3,), names[1]: (2,)}


@free_batch
def test_a_layer_that_begins_with_other_states_than_zeros(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    class Warm(L.GRU):  # type: ignore[misc]  # keras has no types
        def get_initial_state(self, batch_size: Any) -> Any:
            return [keras.ops.ones((batch_size, self.units))]

    x = Input((None, 3))
    model = filled(Model(x, Warm(4, name="warm")(x)))
    words = r"layer warm \(Warm\): a class that Keras cannot rebuild.*register_keras_serializable"
    refused(tmp_path, words, import_keras, model, tmp_path / "m", trace=True, **QUICK)
    with keras.saving.CustomObjectScope({"tests>Warm": keras.saving.register_keras_serializable("tests")(Warm)}):
        imported = import_keras(model, tmp_path / "m", trace=True, **QUICK)
    assert imported.parity.relative < 1e-5
    assert [value.tolist() for value in load_file(tmp_path / "m" / WEIGHTS_FILE).values()][:1] == [[1.0] * 4]


def refusals() -> dict[str, tuple[Callable[[], Any], str]]:
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 3))

    def handed_on() -> Any:
        _, h, c = L.LSTM(4, return_state=True)(x)
        return Model(x, L.LSTM(4, name="second")(x, initial_state=[h, c]))

    def attention() -> Any:
        y = L.LSTM(4, return_sequences=True)(x)
        return Model(x, L.Attention(name="look")([y, y]))

    def without_time() -> Any:
        other = Input((4,), name="speaker")
        return Model([x, other], L.LSTM(4)(x, initial_state=[other, other]))

    def code() -> Any:
        return Model(x, L.Lambda(lambda value: value * 2.0, name="own")(L.LSTM(4)(x)))

    def masked() -> Any:
        return Model(x, L.UnitNormalization()(L.LSTM(4)(L.Masking(name="mask")(x))))

    def plain() -> Any:
        return Model(x, L.Dense(3)(x))

    return {
        "handed on": (handed_on, r"second \(LSTM\): begins with a state that depends on the input"),
        "attention": (attention, r"look \(Attention\): needs the whole sequence"),
        "backwards": (
            lambda: sequential(x, L.LSTM(4, go_backwards=True, name="back"), L.UnitNormalization()),
            r"back \(LSTM\): go_backwards",
        ),
        "without time": (
            without_time,
            r"layer lstm.*: gets its initial state from an input, expected return_state=True, and its states among",
        ),
        "code": (code, "names .*(function|Lambda|lambda).*code of a model is not run"),
        "mask": (masked, r"mask \(Masking\): a mask, expected none"),
        "plain": (plain, "calls no recurrent layer or cell"),
    }


def test_what_cannot_be_traced_is_refused(keras: Any, tmp_path: Path) -> None:
    for name, (make, words) in refusals().items():
        path = tmp_path / f"{name}.keras"
        make().save(path)
        refused(tmp_path, words, import_keras, path, tmp_path / "m", trace=True, **QUICK)


def test_code_in_a_file_is_not_run(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    sequential(Input((None, 3)), L.LSTM(4), L.UnitNormalization()).save(tmp_path / "m.keras")

    def custom(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][2]
        layer["module"], layer["class_name"], layer["registered_name"] = "os", "system", "x>system"

    path = rewritten(tmp_path / "m.keras", tmp_path / "custom.keras", custom)
    refused(
        tmp_path, "names (os|x>system), which is not a class of Keras", import_keras, path, tmp_path / "m", trace=True
    )


def test_a_model_object_is_traced_where_that_is_asked_for(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 3))
    y = L.LSTM(4, return_sequences=True)(x)
    model = filled(Model(x, L.GlobalAveragePooling1D(name="mean")(y)))
    refused(tmp_path, "expected a .keras or .h5 file", import_keras, model, tmp_path / "m", **QUICK)
    refused(tmp_path, r"mean \(GlobalAverage.*whole sequence", import_keras, model, tmp_path / "m", trace=True, **QUICK)


def test_the_command(keras: Any, tmp_path: Path) -> None:
    make, words = refusals()["mask"]
    make().save(tmp_path / "m.keras")
    with pytest.raises(ImportRefused, match=words):
        run_import(["keras", str(tmp_path / "m.keras"), str(tmp_path / "out"), "--trace"])
    with pytest.raises(
        ImportRefused, match=r"not a layer that the import reads, expected one of Activation, .*; pass --trace"
    ):
        run_import(["keras", str(tmp_path / "m.keras"), str(tmp_path / "out")])


@free_batch
def test_what_follows_the_last_time_step_may_change_its_shape(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    x = Input((None, 3))
    model = sequential(x, L.LSTM(4), L.Dense(6), L.Reshape((3, 2), name="pairs"))
    model.save(tmp_path / "m.keras")
    words = r"pairs \(Reshape\): shapes the last time step, which the import does not read; pass --trace"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", **QUICK)
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK)
    assert imported.bundle.spec.outputs[0].shape == (3, 2)
    window = sequential(Input((5, 3)), L.LSTM(4, return_sequences=True), L.Flatten(name="flat"), L.Dense(2))
    words = r"flat \(Flatten\): needs the whole sequence"
    refused(tmp_path, words, import_keras, window, tmp_path / "n", trace=True, **QUICK)
    window.save(tmp_path / "w.keras")
    words += (
        r".*unless it comes after a last time step; expected return_sequences=False in the recurrent layer before it$"
    )
    refused(tmp_path, words, import_keras, tmp_path / "w.keras", tmp_path / "n", **QUICK)


@free_batch
def test_a_returned_state_that_is_used(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 3))
    _, h, c = L.LSTM(4, return_state=True)(x)
    filled(Model(x, L.Dense(2)(L.Concatenate()([h, c])))).save(tmp_path / "m.keras")
    words = "its returned state is used, expected its output; pass --trace"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", **QUICK)
    assert import_keras(tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK).parity.relative < 1e-5


@pytest.mark.parametrize("trace", [False, True])
def test_layers_that_compute_in_other_numbers(keras: Any, trace: bool, tmp_path: Path) -> None:
    """onnxruntime 1.32 crashes when it opens a traced LSTM in float16."""
    from keras import Input
    from keras import layers as L

    half = sequential(Input((None, 3)), L.LSTM(4, dtype="mixed_float16", name="half"))
    half.save(tmp_path / "half.keras")
    words = r"half \(LSTM\): computes in (mixed_)?float16, expected float32"
    refused(tmp_path, words, import_keras, tmp_path / "half.keras", tmp_path / "m", trace=trace, **QUICK)
    quantized = sequential(Input((None, 3)), L.LSTM(4), L.Dense(2, name="whole"))
    quantized.quantize("int8")
    quantized.save(tmp_path / "quantized.keras")
    words = r"whole \(Dense\): quantized, expected float weights; pass the model as it was"
    refused(tmp_path, words, import_keras, tmp_path / "quantized.keras", tmp_path / "m", trace=trace, **QUICK)
