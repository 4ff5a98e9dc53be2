"""The version of Triton that compiles the kernels, which is part of what decides the bits."""

from __future__ import annotations

import triton

TRITON_VERSION: str = triton.__version__
