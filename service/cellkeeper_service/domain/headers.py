"""Many headers at once, as columns of one table over their packed bytes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from .position import HEAD_BYTES
from .record import HEADER_BYTES, Header

LAYOUT = np.dtype(
    [
        ("generation", "V16"),
        ("step", "<u8"),
        ("head", "V8"),
        ("updated_ms", "<u8"),
        ("checkpoint_step", "<u8"),
        ("checkpoint_head", "V8"),
        ("created_ms", "<u8"),
        ("ttl_ms", "<u8"),
        ("fingerprint", "V32"),
        ("numerics", "V8"),
        ("origin", "V16"),
        ("step_bytes", "<u4"),
    ]
)
"""As record.Header packs it."""


def one_step_on(
    headers: Sequence[Header], inputs: Sequence[bytes], updated_ms: int, numerics: bytes, compacted: Sequence[int]
) -> list[Header]:
    """The headers after one more time step each. inputs: the step's raw input. compacted: indices of those whose
    checkpoint is then the state before that step."""
    packed = [header.packed for header in headers]
    heads = [
        blake2b(one[24:32] + data, digest_size=HEAD_BYTES).digest() for one, data in zip(packed, inputs, strict=True)
    ]
    table = np.frombuffer(bytearray().join(packed), LAYOUT)
    if compacted:
        rows = list(compacted)
        table["checkpoint_step"][rows] = table["step"][rows]
        table["checkpoint_head"][rows] = table["head"][rows]
    table["step"] += 1
    table["head"] = np.frombuffer(b"".join(heads), "V8")
    table["updated_ms"] = updated_ms
    table["numerics"] = np.frombuffer(numerics, "V8")
    raw, unpack = table.tobytes(), Header.unpack
    return [unpack(raw[at : at + HEADER_BYTES]) for at in range(0, len(raw), HEADER_BYTES)]
