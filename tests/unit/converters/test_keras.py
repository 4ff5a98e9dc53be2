"""Keras files, read without Keras, give Keras' values."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_keras
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import RecurrentConfig

from verification.parity.keras_cases import keras_cases
from verification.parity.keras_models import filled

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


def test_inputs_and_outputs_with_names(keras: Any, tmp_path: Path) -> None:
    from keras import Input
    from keras import layers as L

    x = Input((None, 3), name="x")
    filled(keras.Model({"x": x}, {"y": L.Dense(2)(L.LSTM(4)(x))})).save(tmp_path / "m.keras")
    imported = import_keras(tmp_path / "m.keras", tmp_path / "m", **QUICK)
    assert imported.parity.relative < 1e-5
    assert imported.parity.source == f"keras {keras.__version__} (torch)"


def test_the_axis_of_a_normalization_after_the_last_time_step(keras: Any, tmp_path: Path) -> None:
    """It counts without time: 1 is the features there, and is time before."""
    from keras import Input
    from keras import layers as L

    def normalized(last: bool) -> Any:
        numbers = {"mean": [0.1] * 4, "variance": [4.0] * 4}
        return filled(
            keras.Sequential([Input((4, 3)), L.GRU(4, return_sequences=not last), L.Normalization(axis=1, **numbers)])
        )

    normalized(last=True).save(tmp_path / "last.keras")
    assert import_keras(tmp_path / "last.keras", tmp_path / "m", **QUICK).parity.relative < 1e-5
    normalized(last=False).save(tmp_path / "each.keras")
    words = r"\(Normalization\): axis: got \[1\], expected -1 or None: one mean for each feature, or a single one$"
    refused(tmp_path, words, import_keras, tmp_path / "each.keras", tmp_path / "n", **QUICK)
