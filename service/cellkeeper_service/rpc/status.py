"""The table from reasons to gRPC codes, and the two forms of a rejection on the wire."""

from __future__ import annotations

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from cellkeeper_service.domain.position import Position
from cellkeeper_service.errors import Reason, Rejection

DOMAIN = "cellkeeper"
DETAILS_KEY = "grpc-status-details-bin"
MAX_TEXT_BYTES, MAX_FIELD_BYTES = 500, 128
"""Of an error's message, and of the name of the field at fault. A status travels in headers, twice, percent-encoded and
in base64, and gRPC drops headers beyond 8 KiB. Without these limits, a message that quotes a long field of the request
would cost the caller the whole status."""
GAP = " ... "
LONGEST_DELAY_MS = 2**32 - 1
"""What the field of an error can hold: seven weeks. A tenant may owe more time steps than its quota allows in that."""

CODES = {
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NON_FINITE_INPUT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NON_FINITE_RESULT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.DUPLICATE_SESSION: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.SESSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.SESSION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.GENERATION_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NUMERICS_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STEP_GAP: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OUTCOME_UNKNOWN: grpc.StatusCode.ABORTED,
    Reason.HISTORY_CHANGED: grpc.StatusCode.ABORTED,
    Reason.STEP_CONFLICT: grpc.StatusCode.ABORTED,
    Reason.COMMIT_CONFLICT: grpc.StatusCode.ABORTED,
    Reason.STEP_COMPACTED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.REPLY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.ACK_BEHIND: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_PASSED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.CALLER_GONE: grpc.StatusCode.CANCELLED,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.INTERNAL_ERROR: grpc.StatusCode.INTERNAL,
    Reason.DATA_LOSS: grpc.StatusCode.DATA_LOSS,
}


def to_position(position: Position) -> pb.Position:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def to_error(rejection: Rejection) -> pb.Error:
    """Returns the form used inside frames and results."""
    return pb.Error(
        code=CODES[rejection.reason].value[0],
        reason=rejection.reason.name,
        message=shortened(rejection.message),
        field=shortened(rejection.field, MAX_FIELD_BYTES),
        position=None if rejection.position is None else to_position(rejection.position),
        retry_delay_ms=min(rejection.retry_delay_ms, LONGEST_DELAY_MS),
    )


def to_status(rejection: Rejection) -> status_pb2.Status:
    """Returns the form for a whole call: google.rpc.Status with ErrorInfo and, if it helps, RetryInfo.

    ErrorInfo's metadata: `field`, and the record's `generation`, `step` and `head` (hex) if they are known.
    """
    metadata = {"field": shortened(rejection.field, MAX_FIELD_BYTES)} if rejection.field else {}
    if rejection.position is not None:
        metadata["generation"] = rejection.position.generation.hex()
        metadata["step"] = str(rejection.position.step)
        metadata["head"] = rejection.position.head.hex()
    info = error_details_pb2.ErrorInfo(reason=rejection.reason.name, domain=DOMAIN, metadata=metadata)
    details = [_pack(info)]
    if rejection.retry_delay_ms:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(min(rejection.retry_delay_ms, LONGEST_DELAY_MS))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = CODES[rejection.reason].value[0]
    return status_pb2.Status(code=code, message=shortened(rejection.message), details=details)


def shortened(text: str, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """Returns the beginning and the end of a text with more than `most_bytes` of UTF-8, or nothing if they are too few.

    The end of a message says what was expected.
    """
    encoded = text.encode()
    if len(encoded) <= most_bytes:
        return text
    half = (most_bytes - len(GAP)) // 2
    if half <= 0:
        return ""
    return encoded[:half].decode(errors="ignore") + GAP + encoded[-half:].decode(errors="ignore")


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
