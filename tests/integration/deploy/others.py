"""An unofficial client: unary calls, with the metadata that lets the proxy keep a session on one server."""

from __future__ import annotations

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

METADATA_KEY = "cellkeeper-session"
TIMEOUT_S = 30.0


def hot_where_asked(target: str, sessions: int, calls: int) -> int:
    """Steps so many new sessions in turn, `calls` times each. Returns how many are hot where their calls arrive."""
    with grpc.insecure_channel(target) as channel:
        stub = CellkeeperStub(channel)  # type: ignore[no-untyped-call]
        names = [f"other-{number}" for number in range(sessions)]
        for step in range(calls):
            for name in names:
                sample = np.array([[340.0 + step]], "<f4").tobytes()
                request = pb.StepRequest(session=name, dtype=pb.FLOAT32, shape=[1, 1], inputs=sample)
                stub.Step(request, timeout=TIMEOUT_S, metadata=[(METADATA_KEY, name)])
        answers = [
            stub.GetSession(pb.GetSessionRequest(session=name), timeout=TIMEOUT_S, metadata=[(METADATA_KEY, name)])
            for name in names
        ]
        return sum(answer.hot for answer in answers)
