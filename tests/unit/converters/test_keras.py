"""Keras files, read without Keras, give Keras' values. What cannot be streamed or kept is refused by name."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cellkeeper_service.converters import Missing, Normalization, import_keras
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import GraphConfig, RecurrentConfig

from verification.parity.keras_cases import keras_cases
from verification.parity.keras_models import filled, functional, saved, sequential

from .leftovers import refused

# Keras' own warnings while it saves, and those about onnxruntime's and h5py's extension types
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.fire)])
def test_same_values_as_keras(keras: Any, tmp_path: Path, every: int) -> None:
    """Some of the architectures; `make test-fire` and `make parity` cover all."""
    for number, case in enumerate([case for case in keras_cases() if not case.slow][::every]):
        imported = case.run(tmp_path / f"m{number}", 8)
        assert imported.parity.source == f"keras {keras.__version__} (torch)", case.title
        assert imported.parity.relative < 1e-5, case.title
        assert imported.parity.exact, case.title


@pytest.fixture
def simple(keras: Any, tmp_path: Path) -> Path:
    """Saves a small model: LSTM 8, GRU 4, Dense 1."""
    from keras import Input
    from keras import layers as L

    model = sequential(Input((None, 3)), L.LSTM(8, return_sequences=True, name="first"), L.GRU(4), L.Dense(1))
    path = tmp_path / "simple.keras"
    model.save(path)
    return path


def test_without_keras_its_own_reference_takes_over(
    simple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "keras" else find(name, *rest))
    imported = import_keras(simple, tmp_path / "m", **QUICK)
    assert imported.parity.source == "its own float64 reference (keras is not installed)"
    assert imported.parity.relative < 1e-5


def test_neither_keras_nor_torch_is_loaded_to_read_a_file(simple: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'keras' else find(name, *rest)\n"
        "from cellkeeper_service.converters import import_keras\n"
        "import_keras(sys.argv[1], sys.argv[2], max_batch=2)\n"
        "sys.exit(bool({'keras', 'torch', 'tensorflow'} & set(sys.modules)))\n"
    )
    subprocess.run([sys.executable, "-c", program, simple, tmp_path / "m"], check=True, timeout=60)


def test_prefixes_of_a_sequence_give_what_keras_gives_for_them(keras: Any, simple: Path, tmp_path: Path) -> None:
    import_keras(simple, tmp_path / "m", **QUICK)
    x = np.random.default_rng(3).standard_normal((7, 3)).astype(np.float32)
    served = offline(tmp_path / "m", x)["prediction"]
    model = keras.saving.load_model(simple)
    expected = [keras.ops.convert_to_numpy(model(x[None, : n + 1]))[0] for n in range(len(x))]
    np.testing.assert_allclose(served, np.stack(expected), rtol=1e-5, atol=1e-6)


def test_normalisation_goes_into_the_bundle(keras: Any, tmp_path: Path) -> None:
    case = next(case for case in keras_cases() if "stateful" in case.title)
    config = case.run(tmp_path / "m", 8).bundle.config
    assert isinstance(config, RecurrentConfig)
    normalization = getattr(config.input, "normalization", None)
    assert normalization is not None
    np.testing.assert_allclose(normalization.offset, [300.0, -2.0, 0.01], rtol=0.1)
    np.testing.assert_allclose(normalization.scale, [20.0, 0.5, 0.002], rtol=0.2)


def test_a_masked_step_leaves_the_state_alone(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    model = sequential(Input((None, 2)), L.Masking(0.0), L.LSTM(4, return_sequences=True))
    config = saved(model)(tmp_path / "m", 8).bundle.config
    assert isinstance(config, GraphConfig)
    x = np.array([[1, 2], [0, 0], [0, 3], [0, 0]], np.float32)
    served = offline(tmp_path / "m", x)["prediction"]
    np.testing.assert_array_equal(served[1], served[0])
    np.testing.assert_array_equal(served[3], served[2])
    assert (served[2] != served[1]).all()


NUMBERS = Normalization((60.0, 2.0, 11.0), (3.7, 0.3, 0.7))


def masked_model() -> Any:
    from keras import Input
    from keras import layers as L

    return sequential(
        Input((None, 3)), L.Masking(-10.0), L.GRU(6, return_sequences=True), L.GRU(4, return_sequences=True), L.Dense(3)
    )


@pytest.mark.parametrize("value", [-999.0, (-999.0, -998.0, -997.0)], ids=["one", "each"])
def test_missing_values_reach_the_mask_behind_a_normalization(keras: Any, tmp_path: Path, value: Any) -> None:
    """A whole time step of NaN is masked; one missing feature is not, but is the mask's value for the model."""
    model = masked_model()
    saved(model, normalization=NUMBERS, missing=Missing("constant", value))(tmp_path / "m", 8)
    offset, scale = np.array(NUMBERS.offset), np.array(NUMBERS.scale)
    x = np.random.default_rng(1).normal(offset, scale, (30, 3)).astype(np.float32)
    x[[4, 5, 17]] = np.nan
    x[9, 1] = x[20, 2] = np.nan
    as_trained = np.nan_to_num((x - offset) / scale, nan=-10.0).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(as_trained[None]))[0]
    served = offline(tmp_path / "m", x)["prediction"]
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(served[4], served[3])
    assert (served[9] != served[8]).all()


def test_without_keras_a_mask_behind_a_normalization_is_compared_too(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked_model().save(tmp_path / "m.keras")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "keras" else find(name, *rest))
    options: dict[str, Any] = {"normalization": NUMBERS, "missing": Missing("constant", -999.0), **QUICK}
    assert import_keras(tmp_path / "m.keras", tmp_path / "m", **options).parity.relative < 1e-5
    x = np.tile(np.array(NUMBERS.offset, np.float32), (3, 1))
    x[1] = np.nan
    served = offline(tmp_path / "m", x)["prediction"]
    np.testing.assert_array_equal(served[1], served[0])


ONLY, NONE = "only time steps of [23.0, -1.0, 4.0] are masked; to mask", "no time step is masked; to mask"


@pytest.mark.parametrize(
    ("missing", "offset", "words"),
    [
        (None, 60.0, ONLY),
        (Missing("hold", -10.0), 60.0, ONLY),
        (None, 1000.1, NONE),
        (Missing("constant", -999.0), 60.0, ""),
    ],
    ids=["reject", "hold", "out of reach", "constant"],
)
def test_the_import_says_that_few_or_no_time_steps_are_masked(
    keras: Any, tmp_path: Path, missing: Missing | None, offset: float, words: str
) -> None:
    masked_model().save(tmp_path / "m.keras")
    lines: list[str] = []
    numbers = Normalization((offset, *NUMBERS.offset[1:]), NUMBERS.scale)
    options: dict[str, Any] = {"normalization": numbers, "missing": missing, "max_batch": 8, "report": lines.append}
    import_keras(tmp_path / "m.keras", tmp_path / "m", **options)
    said = [line for line in lines if line.startswith("mask: with this normalization, ")]
    assert len(said) == bool(words)
    assert all(words in line for line in said)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (Missing("constant", -10.0), []),
        (
            Missing("constant", -999.0),
            ["become -999.0, which is not masked; to mask them, pass [-10.0, -10.0, -10.0] as the value"],
        ),
        (Missing("constant", (-10.0, -10.0, 0.0)), ["become (-10.0, -10.0, 0.0), which is not masked"]),
        (Missing("hold", -999.0), []),
    ],
    ids=["the mask's value", "another", "one feature's", "hold"],
)
def test_without_a_normalization_the_import_says_that_missing_values_are_not_masked(
    keras: Any, tmp_path: Path, missing: Missing, words: list[str]
) -> None:
    """Filled with another value than the mask's, a time step of NaN moves the state, which no comparison reveals."""
    masked_model().save(tmp_path / "m.keras")
    lines: list[str] = []
    import_keras(tmp_path / "m.keras", tmp_path / "m", missing=missing, max_batch=8, report=lines.append)
    said = [line for line in lines if line.startswith("mask: missing values (NaN) ")]
    assert len(said) == len(words)
    assert all(word in line for line, word in zip(said, words, strict=True))
    x = np.ones((2, 3), np.float32)
    x[1] = np.nan
    served = offline(tmp_path / "m", x)["prediction"]
    assert (served[1] == served[0]).all() == (missing == Missing("constant", -10.0))


def test_inputs_and_outputs_with_names(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    x = Input((None, 3), name="x")
    filled(keras.Model({"x": x}, {"y": L.Dense(2)(L.LSTM(4)(x))})).save(tmp_path / "m.keras")
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", **QUICK)
    assert imported.parity.relative < 1e-5
    assert imported.parity.source == f"keras {keras.__version__} (torch)"


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
        "convolution after a mask": (
            chain(L.Masking(), L.Conv1D(4, 3, padding="causal", name="conv"), L.LSTM(4)),
            r"conv \(Conv1D\): a mask before a convolution",
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


# ------------------------------------------------------------------------------------------ bad files


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None], **more: bytes) -> Path:
    """Copies a .keras file with a changed config.json and additional entries."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**parts, **more}.items():
            archive.writestr(name, data)
    return target


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
