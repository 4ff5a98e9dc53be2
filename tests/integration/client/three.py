"""Three sessions of the model that sums, and a time step for each."""

from __future__ import annotations

import numpy as np

IDS = ["a", "b", "c"]
ROWS = np.array([[1, 0], [2, 0], [3, 0]], np.float32)
