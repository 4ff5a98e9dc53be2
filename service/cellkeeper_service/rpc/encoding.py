"""Encodes replies, so that each fits into a message.

What a reply consists of is limited when its request is read, except for the texts of its items' errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .status import shortened


def encoder(max_message_bytes: int) -> Callable[[Any], bytes]:
    """Returns a function from a reply to its bytes.

    If there are more than `max_message_bytes`, it shortens the messages of the reply's errors, evenly. Codes, reasons,
    fields and positions stay: catalog.MESSAGE_BYTES_PER_ITEM leaves room for them.
    """

    def encode(reply: Any) -> bytes:
        data: bytes = reply.SerializeToString()
        if len(data) <= max_message_bytes:
            return data
        errors = _errors(reply)
        texts = sum(len(error.message.encode()) for error in errors)
        room = max_message_bytes - (len(data) - texts)
        for error in errors:
            error.message = shortened(error.message, max(room, 0) // len(errors))
        encoded: bytes = reply.SerializeToString()
        return encoded

    return encode


def _errors(reply: Any) -> list[pb.Error]:
    """Returns the errors of the reply's items."""
    match reply:
        case pb.StepFrameReply():
            return [entry.error for entry in reply.errors]
        case pb.SessionResults() | pb.OpenManyResponse():
            return [result.error for result in reply.results if result.HasField("error")]
        case _:
            return []
