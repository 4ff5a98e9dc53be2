"""Messages from bytes: what is no message of its type is refused by the service itself, as any other bad request.

gRPC would answer UNKNOWN for bytes that a deserializer raises for: a code that tells a client nothing, and that many
retry.
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
    """Stands where a message should be. count: the bytes that came. expected: the message type."""

    count: int
    expected: str

    def rejection(self) -> Rejection:
        return invalid("request", f"{self.count} bytes that are no message", f"a {self.expected} (texts are UTF-8)")


def decoder(message_class: Any) -> Callable[[bytes], Any]:
    """bytes -> the message, or Malformed."""

    def decode(data: bytes) -> Any:
        try:
            return message_class.FromString(data)
        except DecodeError:
            return Malformed(len(data), message_class.DESCRIPTOR.full_name)

    return decode


def handlers(servicer: object, service: Any = SERVICE, path: str = "") -> grpc.GenericRpcHandler[Any, Any]:
    """The service's RPCs, each bound to the servicer's method of its name. path: the name that clients call the service
    by, where it is not the descriptor's.

    For gRPC the unary ones are streams of one message, which on the wire is the same, and costs no more: the call is
    handed over before its message has been read, and one that is refused never is.
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
