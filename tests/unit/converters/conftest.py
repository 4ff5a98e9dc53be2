from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
torch.set_num_threads(1)

free_batch = pytest.mark.skipif(
    tuple(map(int, version("keras").split(".")[:2])) < (3, 14),
    reason="Keras before 3.14, as for Python 3.10, makes a number of the size of the batch in much of what it traces",
)


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras 3 on torch."""
    import keras

    return keras


@pytest.fixture
def simple(keras: Any, tmp_path: Path) -> Path:
    """Saves a small model: LSTM 8, GRU 4, Dense 1."""
    from keras import Input
    from keras import layers as L

    from verification.parity.keras_models import sequential

    model = sequential(Input((None, 3)), L.LSTM(8, return_sequences=True, name="first"), L.GRU(4), L.Dense(1))
    path = tmp_path / "simple.keras"
    model.save(path)
    return path


@pytest.fixture(autouse=True, scope="package")
def exporters_tables_made_once() -> Iterator[None]:
    """At each export, torch makes anew its table of the operators that ONNX has, with the source code of each one's
    conversion read and parsed, and looks all its own operators up: half of an export's time. Neither depends on what
    is exported."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        patch.setattr(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops))
        yield
