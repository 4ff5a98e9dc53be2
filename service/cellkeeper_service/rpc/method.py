"""An RPC as the gRPC listener serves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC. It reads its messages from its call (CallContext.read), also if it is unary.

    On the wire a unary RPC is a stream of one message. A call is handed over before its message has arrived, so the
    message of a refused call is never read. Nor is a second message of a unary RPC.

    answer: called with the call. Without `streams` a coroutine function that returns the reply; with it an
    asynchronous generator of lists of replies that are ready, or a coroutine function that writes them to the call.
    decode: from a message's bytes to what `read` returns. encode: from a reply to its bytes.
    """

    answer: Callable[[Any], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    streams: bool = False
