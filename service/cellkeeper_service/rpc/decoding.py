"""Decodes messages. The service itself refuses what cannot be decoded, as it refuses any bad request.

If a deserializer raises, gRPC answers UNKNOWN, which tells a client nothing and which many clients retry, and logs a
traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from cellkeeper_service.errors import Rejection, invalid

from .catalog import WireLimits
from .contract import Contract, proto_of
from .encoding import encoder
from .field_count import has_more_fields
from .method import Method

SERVICE = cellkeeper_pb2.DESCRIPTOR.services_by_name["Cellkeeper"]
CONTRACT = Contract(SERVICE.full_name, proto_of(cellkeeper_pb2.DESCRIPTOR))


@dataclass(frozen=True, slots=True)
class Malformed:
    """Takes the place of a message that was not decoded. came, expected: as in `invalid`."""

    came: str
    expected: str

    def rejection(self) -> Rejection:
        return invalid("request", self.came, self.expected)


def decoder(message_class: Any, max_fields: int) -> Callable[[bytes], Any]:
    """Returns a function from bytes to the message, or to Malformed.

    max_fields: of a message, with those of the messages in it.
    """
    kind: Descriptor = message_class.DESCRIPTOR

    def decode(data: bytes) -> Any:
        if has_more_fields(data, kind, max_fields):
            return Malformed(f"more than {max_fields} fields", "fewer; send several requests")
        try:
            return message_class.FromString(data)
        except DecodeError:
            came = f"{len(data)} bytes that are not a valid message"
            return Malformed(came, f"a {kind.full_name} (strings are UTF-8)")

    return decode


def methods(servicer: object, limits: WireLimits, service: Any = SERVICE, path: str = "") -> dict[str, Method]:
    """Binds each of the service's RPCs to the servicer's method of the same name. Returns them by their paths.

    path: the name by which clients call the service, if it is not the descriptor's.
    """
    encode = encoder(limits.max_message_bytes)
    return {
        f"/{path or service.full_name}/{rpc.name}": Method(
            getattr(servicer, rpc.name),
            decoder(GetMessageClass(rpc.input_type), limits.max_message_fields),
            encode,
            streams=rpc.server_streaming,
        )
        for rpc in service.methods
    }
