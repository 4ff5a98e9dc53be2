"""Decodes messages. The service itself refuses bytes that are not a valid message, as it refuses any bad request.

If a deserializer raises, gRPC answers UNKNOWN, which tells a client nothing and which many clients retry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from cellkeeper_service.errors import Rejection, invalid

from .contract import Contract, proto_of

SERVICE = cellkeeper_pb2.DESCRIPTOR.services_by_name["Cellkeeper"]
CONTRACT = Contract(SERVICE.full_name, proto_of(cellkeeper_pb2.DESCRIPTOR))


@dataclass(frozen=True, slots=True)
class Malformed:
    """Takes the place of a message that could not be decoded. count: bytes received. expected: the message type."""

    count: int
    expected: str

    def rejection(self) -> Rejection:
        return invalid(
            "request", f"{self.count} bytes that are not a valid message", f"a {self.expected} (strings are UTF-8)"
        )


def decoder(message_class: Any) -> Callable[[bytes], Any]:
    """Returns a function from bytes to the message, or to Malformed."""

    def decode(data: bytes) -> Any:
        try:
            return message_class.FromString(data)
        except DecodeError:
            return Malformed(len(data), message_class.DESCRIPTOR.full_name)

    return decode


def handlers(servicer: object, service: Any = SERVICE, path: str = "") -> grpc.GenericRpcHandler[Any, Any]:
    """Binds each of the service's RPCs to the servicer's method of the same name.

    gRPC sees the unary RPCs as streams of one message, which is the same on the wire and costs no more. It then hands
    over a call before reading its message, so the message of a refused call is never read.

    path: the name by which clients call the service, if it is not the descriptor's.
    """
    made = {}
    for method in service.methods:
        answer = getattr(servicer, method.name)
        if method.client_streaming and method.server_streaming:
            make = grpc.stream_stream_rpc_method_handler
        else:
            make = grpc.stream_unary_rpc_method_handler
        made[method.name] = make(
            answer,
            request_deserializer=decoder(GetMessageClass(method.input_type)),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(path or service.full_name, made)
