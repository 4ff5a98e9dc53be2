from __future__ import annotations

import os
from typing import Any

import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras 3 on torch."""
    import keras

    return keras
