"""The naive service's messages.

A request is 16 bytes of model name, 32 bytes of session name, then float32 inputs [T, features]; the answer is float32
outputs [T, 1].
"""

from __future__ import annotations

SERVICE = "bench.Naive"
METHOD = f"/{SERVICE}/Step"
MODEL_BYTES, SESSION_BYTES = 16, 32
