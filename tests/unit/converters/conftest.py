from __future__ import annotations

import os
from importlib.metadata import version
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
