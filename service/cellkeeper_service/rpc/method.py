"""RPCs as the gRPC listener serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2
from google.protobuf.message_factory import GetMessageClass

from .catalog import WireLimits
from .codec import decoder, encoder
from .contract import proto_of

SERVICE = cellkeeper_pb2.DESCRIPTOR.services_by_name["Cellkeeper"]
CONTRACT = proto_of(cellkeeper_pb2.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC. It reads its messages from its call (CallContext.read), also if it is unary.

    On the wire a unary RPC is a stream of one message. A call is handed over before its message has arrived, so the
    message of a refused call is never read. Nor is a second message of a unary RPC.

    answer: called with the call. Without `streams` a coroutine function that returns the reply; with it an
    asynchronous generator of lists of replies that are ready, or a coroutine function that writes them to the call.
    decode: from a message's bytes to what `read` returns; raises a Rejection. encode: from a reply to its bytes.
    """

    answer: Callable[[Any], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    streams: bool = False


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
