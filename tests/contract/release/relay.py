"""A server that passes every call on to another one, byte by byte, and records the messages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

DEADLINE_S = 60.0
Passed = list[tuple[str, bytes]]  # a sign, ">" for a request and "<" for a reply, and the message


class Relay:
    """Records calls, as a context manager. target: the address of the server behind it.

    calls: the path and messages of each call, in order of their start. If a call fails, the relay passes its status on,
    which is not a message.
    """

    def __init__(self, target: str) -> None:
        self.calls: list[tuple[str, Passed]] = []
        self._channel = grpc.insecure_channel(target)
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((_Handler(self._pass),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def _pass(self, path: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        passed: Passed = []
        self.calls.append((path, passed))

        def kept() -> Iterator[bytes]:
            for request in requests:
                passed.append((">", request))
                yield request

        # The channel writes these itself; all others are the caller's.
        metadata: Any = [pair for pair in context.invocation_metadata() if pair[0] != "user-agent"]
        call = self._channel.stream_stream(path, None, None)(kept(), metadata=metadata, timeout=DEADLINE_S)
        context.add_callback(call.cancel)
        try:
            for reply in call:
                passed.append(("<", reply))
                yield reply
        except grpc.RpcError as error:
            trailing: Any = error.trailing_metadata() or ()
            context.set_trailing_metadata(trailing)
            context.set_code(error.code())
            context.set_details(error.details() or "")

    def __enter__(self) -> Relay:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._channel.close()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, passing: Any) -> None:
        self._passing = passing

    def service(self, details: Any) -> Any:
        path = details.method
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: self._passing(path, requests, context))
