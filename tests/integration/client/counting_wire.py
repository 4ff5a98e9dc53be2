"""What the counting server writes: positions, refusals of items, and the statuses that end a stream or a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from cellkeeper import Position
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

CODES = {
    "INVALID_FIELD": 3,
    "NON_FINITE_RESULT": 3,
    "DUPLICATE_SESSION": 3,
    "SESSION_NOT_FOUND": 5,
    "SESSION_EXISTS": 6,
    "GENERATION_CHANGED": 9,
    "MODEL_CHANGED": 9,
    "STEP_GAP": 9,
    "HISTORY_CHANGED": 10,
    "STEP_CONFLICT": 10,
    "COMMIT_CONFLICT": 10,
    "STEP_COMPACTED": 11,
    "QUEUE_FULL": 8,
    "STORE_UNAVAILABLE": 14,
    "DRAINING": 14,
    "INTERNAL_ERROR": 13,
}


def message_of(position: Position) -> Any:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def position_of(message: Any) -> Position:
    return Position(message.generation, message.step, message.head)


class Refused(Exception):
    def __init__(
        self, reason: str, position: Position | None = None, message: str = "", delay_ms: int = 0, field: str = ""
    ) -> None:
        super().__init__(message or reason)
        self.reason, self.position, self.delay_ms, self.field = reason, position, delay_ms, field
        self.message = message or f"refused: {reason}"

    def wire(self) -> Any:
        where = self.position
        return pb.Error(
            code=CODES[self.reason],
            reason=self.reason,
            message=self.message,
            field=self.field,
            position=None if where is None else message_of(where),
            retry_delay_ms=self.delay_ms,
        )


@dataclass
class Ending:
    """How the next stream or call ends.

    code: its status. reason: of this contract; empty: the status has no details, as one of a proxy or of gRPC itself.
    moment: "unread": before a frame is read; "read": a frame was read, and is not applied; "applied": it is applied,
    and not answered. frames: so many frames are applied and not answered, the last of them as `moment` says. times: so
    many streams or calls.
    """

    code: grpc.StatusCode
    reason: str = ""
    moment: str = "applied"
    frames: int = 1
    times: int = 1


def details(code: grpc.StatusCode, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> Any:
    """Returns the trailing metadata with which a server of this contract says why it refuses."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="cellkeeper", metadata=metadata))
    status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
    return (("grpc-status-details-bin", status.SerializeToString()),)
