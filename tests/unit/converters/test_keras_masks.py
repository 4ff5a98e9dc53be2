"""Masks of Keras models: time steps that leave the state alone, also behind a normalization."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import Missing, Normalization, import_keras
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import GraphConfig

from verification.parity.keras_models import saved, sequential

# Keras' own warnings while it saves, and those about onnxruntime's and h5py's extension types
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


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


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_ends_a_mask(kernel: int, keras: Any, tmp_path: Path) -> None:
    """Keras passes no mask through it, so only the layer before it skips time steps."""
    from keras import Input
    from keras import layers as L

    conv, first = L.Conv1D(3, kernel, padding="causal"), L.GRU(4, return_sequences=True)
    model = sequential(Input((None, 2)), L.Masking(0.0), first, conv, L.LSTM(4, return_sequences=True))
    model.save(tmp_path / "m.keras")
    lines: list[str] = []
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", max_batch=8, report=lines.append)
    assert imported.parity.relative < 1e-5
    assert [line for line in lines if line.startswith("mask: ")] == [
        f"mask: ends at {tmp_path / 'm.keras'}: layer {conv.name} (Conv1D), as in Keras; the layers after it skip no "
        "time step"
    ]
    x = np.array([[1, 2], [0, 0], [0, 3], [0, 0]], np.float32)
    served = offline(tmp_path / "m", x)["prediction"]
    np.testing.assert_allclose(served, keras.ops.convert_to_numpy(model(x[None]))[0], rtol=1e-4, atol=1e-6)
    assert (served[1] != served[0]).all()


def test_the_last_time_step_has_no_mask(keras: Any, tmp_path: Path) -> None:
    """So a softmax of it is that of its values."""
    from keras import Input
    from keras import layers as L

    model = sequential(Input((None, 2)), L.Masking(0.0), L.LSTM(4), L.Softmax())
    assert saved(model)(tmp_path / "m", 8).parity.relative < 1e-5


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
