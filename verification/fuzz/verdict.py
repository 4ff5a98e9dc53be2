"""Checks that the service may give an answer: it must be typed, and have its reason's code."""

from __future__ import annotations

from typing import Any

import grpc
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.errors import Reason
from cellkeeper_service.rpc.status import CODES, DETAILS_KEY
from google.rpc import error_details_pb2, status_pb2

CODE_BY_REASON = {pb.Reason.Value(reason.name): CODES[reason].value[0] for reason in Reason}
NEVER = {"INTERNAL_ERROR", "STORE_UNAVAILABLE", "DRAINING"}  # none of these can happen here
LONGEST_MESSAGE = 2000

# gRPC itself answers with these, without the service, when a call ends on the client's side.
BY_GRPC = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}

# grpc.aio's client reports this as a stream's status if it writes a frame after the server has ended the stream. A
# server cannot send it.
BY_CLIENT = (grpc.StatusCode.INTERNAL, "Internal error from Core")

# The client's core puts this in the place of a status that has arrived, but not been read, when the call's deadline
# passes. It keeps the rest of the trailing metadata, and so the server's ErrorInfo.
REPLACED = (grpc.StatusCode.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)")


def wrong_status(error: grpc.aio.AioRpcError) -> str:
    """Returns what is wrong with a failed call's status; empty if nothing is."""
    code, info = error.code(), None
    if (code, error.details()) == REPLACED:
        return ""
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == DETAILS_KEY:
            status = status_pb2.Status.FromString(bytes(value))
            for detail in status.details:
                found = error_details_pb2.ErrorInfo()
                if detail.Unpack(found):
                    info = found
    if info is None:
        if (code, error.details()) == BY_CLIENT:
            return ""
        return "" if code in BY_GRPC else f"{code.name} without ErrorInfo: {error.details()}"
    if len(error.details() or "") > LONGEST_MESSAGE:
        return f"a message of {len(error.details() or '')} characters"
    number = pb.Reason.Value(info.reason) if info.reason in dict(pb.Reason.items()) else -1
    return _wrong(number, code.value[0], error.details() or "")


def wrong_error(error: pb.Error) -> str:
    """Returns what is wrong with an error inside a frame or a result; empty if nothing is."""
    return _wrong(error.reason, error.code, error.message)


def wrong_reply(reply: Any) -> str:
    """Returns what is wrong with the errors of a reply's items; empty if nothing is."""
    match reply:
        case pb.StepFrameReply():
            errors = [item.error for item in reply.errors]
            if reply.HasField("frame_error"):
                errors.append(reply.frame_error)
        case pb.SessionResults() | pb.OpenManyResponse():
            errors = [result.error for result in reply.results if result.HasField("error")]
        case inference_pb2.ModelStreamInferResponse():
            return _wrong_text(reply.error_message)
        case _:
            errors = []
    return next((wrong for error in errors if (wrong := wrong_error(error))), "")


def _wrong_text(message: str) -> str:
    """Returns what is wrong with an error that has no code."""
    if message.startswith("internal error"):
        return f"INTERNAL_ERROR: {message}"
    return f"a message of {len(message)} characters" if len(message) > LONGEST_MESSAGE else ""


def _wrong(reason: int, code: int, message: str) -> str:
    if reason not in CODE_BY_REASON:
        return f"reason {reason}, which does not exist: {message}"
    name = pb.Reason.Name(reason)
    if CODE_BY_REASON[reason] != code:
        return f"{name} with code {code}: {message}"
    if name in NEVER:
        return f"{name}: {message}"
    if len(message) > LONGEST_MESSAGE:
        return f"{name} with a message of {len(message)} characters"
    return ""
