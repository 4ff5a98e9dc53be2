"""Decodes messages, and encodes replies so that each fits into a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from cellkeeper_service.errors import invalid

from .field_count import has_more_fields
from .status import shortened


def decoder(message_class: Any, max_fields: int) -> Callable[[bytes], Any]:
    """Returns a function from bytes to the message, which raises a Rejection if they are not one.

    max_fields: of a message, with those of the messages in it.
    """
    kind: Descriptor = message_class.DESCRIPTOR

    def decode(data: bytes) -> Any:
        if has_more_fields(data, kind, max_fields):
            raise invalid("request", f"more than {max_fields} fields", "fewer; send several requests")
        try:
            return message_class.FromString(data)
        except DecodeError:
            came = f"{len(data)} bytes that are not a valid message"
            raise invalid("request", came, f"a {kind.full_name} (strings are UTF-8)") from None

    return decode


def encoder(max_message_bytes: int) -> Callable[[Any], bytes]:
    """Returns a function from a reply to its bytes.

    What a reply consists of is limited when its request is read, except for the texts of its items' errors. If there
    are more than `max_message_bytes`, it shortens those texts, evenly. Codes, reasons, fields and positions stay:
    catalog.MESSAGE_BYTES_PER_ITEM leaves room for them.
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
