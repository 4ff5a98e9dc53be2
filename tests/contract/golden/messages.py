"""Requests to the golden model, as messages.

It has two features. Its outputs have the same bits on every machine: the state h is the sum of the inputs, the
prediction is h[0] + 2 h[1], and all values are integers that float32 represents exactly, in any order of addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .names import Position

MODEL = "golden"
Row = tuple[float, float]
Rows = Sequence[Row]


def step_request(session: str, position: Position | None, rows: Rows, **fields: Any) -> pb.StepRequest:
    return pb.StepRequest(
        model=MODEL,
        session=session,
        dtype=pb.FLOAT32,
        shape=[len(rows), 2],
        inputs=b"".join(map(row_bytes, rows)),
        position=None if position is None else position_message(position),
        **fields,
    )


def frame_request(items: Sequence[tuple[str, Position | None, Rows]], **fields: Any) -> pb.StepFrame:
    return pb.StepFrame(
        frame_id=7,
        model=MODEL,
        sessions=[session for session, _, _ in items],
        steps=[len(rows) for _, _, rows in items],
        dtype=pb.FLOAT32,
        step_shape=[2],
        inputs=b"".join(row_bytes(row) for _, _, rows in items for row in rows),
        positions=b"".join(bytes(32) if position is None else position.pack() for _, position, _ in items),
        **fields,
    )


def state_tensor(*values: float) -> pb.Tensor:
    return pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 2], data=np.array(values, "<f4").tobytes())


def row_bytes(row: Row) -> bytes:
    return np.array(row, "<f4").tobytes()


def position_message(position: Position) -> pb.Position:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def numerics_digest(numerics: str) -> bytes:
    """Returns the digest as headers contain it."""
    return blake2b(numerics.encode(), digest_size=8).digest()
