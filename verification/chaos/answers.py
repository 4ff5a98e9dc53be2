"""How a raw client's answers get into the history."""

from __future__ import annotations

import time

import numpy as np

from testing.wire_client import Refused, Result

from .history import Ack, Array, Burst


def note(burst: Burst, answer: Result | Refused, rows: int = 0) -> None:
    """Records how the next `rows` time steps of the burst were answered; 0: all of them."""
    now = time.monotonic()
    if isinstance(answer, Refused):
        burst.error, burst.error_text, burst.error_at = answer.reason, answer.message, now
        return
    outputs, rows = {}, rows or len(burst.inputs)
    for name, raw in answer.outputs.items():
        outputs[name] = _rows(raw, rows)
    burst.acks.append(Ack(rows, now, answer.position, outputs, {}, not answer.replayed))


def _rows(raw: bytes, rows: int) -> Array:
    """Returns [rows, bytes of a row]: only bits are compared."""
    return np.frombuffer(raw, np.uint8).reshape(rows, -1)
