"""Servers of one method, on this listener and on grpcio's own asyncio server, and calls of it."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.method import Method

PATH = "/test.Service/Call"
SECONDS = 30.0
"""Longer than anything takes, for what must not wait forever."""

Answer = Callable[[Any], Any]
END = grpc.aio.EOF  # type: ignore[attr-defined]


class Served(ABC):
    """A server that serves. port: where."""

    port: int

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None: ...

    @asynccontextmanager
    async def call(self, path: str = PATH) -> AsyncIterator[Any]:
        """Yields a function that starts a call of the method, and closes its channel afterwards."""
        channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        async with channel:
            yield channel.stream_stream(path)


class OnListener(Served):
    def __init__(self, methods: Mapping[str, Method], max_rpcs: int) -> None:
        self.listener = Listener(methods, (), max_rpcs)
        self.port = self.listener.listen("127.0.0.1:0", None)
        self.listener.start()

    async def stop(self, grace_seconds: float) -> None:
        await self.listener.stop(grace_seconds)


class OnGrpcAio(Served):
    """Serves methods as the listener does, but by grpcio's own server."""

    def __init__(self, methods: Mapping[str, Method], max_rpcs: int) -> None:
        self.server = grpc.aio.server(maximum_concurrent_rpcs=max_rpcs)
        handlers = {path.rpartition("/")[2]: self._handler(method) for path, method in methods.items()}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def stop(self, grace_seconds: float) -> None:
        await self.server.stop(grace_seconds)

    def _handler(self, method: Method) -> Any:
        async def serve(_: Any, context: Any) -> None:
            answer = method.answer(Context(context))
            if inspect.iscoroutine(answer):
                reply = await answer
                if not method.streams:
                    await context.write(reply)
                return
            async with aclosing(answer):
                async for ready in answer:
                    for reply in ready:
                        await context.write(reply)

        return grpc.stream_stream_rpc_method_handler(serve)


class Context:
    """grpcio's context, with this service's EOF."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        data = await self._context.read()
        return EOF if data is END else data


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def on_listener(answer: Answer, *, streams: bool = False, max_rpcs: int = 1000) -> AsyncIterator[OnListener]:
    served = OnListener({PATH: Method(answer, bytes, bytes, streams)}, max_rpcs)
    try:
        yield served
    finally:
        await asyncio.wait_for(served.stop(0), SECONDS)
        await asyncio.wait_for(served.listener.close(), SECONDS)


@asynccontextmanager
async def on_grpc_aio(answer: Answer, *, streams: bool = False, max_rpcs: int = 1000) -> AsyncIterator[OnGrpcAio]:
    served = OnGrpcAio({PATH: Method(answer, bytes, bytes, streams)}, max_rpcs)
    await served.server.start()
    try:
        yield served
    finally:
        await asyncio.wait_for(served.stop(0), SECONDS)


async def echo(call: Any) -> bytes:
    return bytes(await call.read())


async def ask(start: Any, data: bytes = b"", **how: Any) -> list[bytes]:
    """Sends one message, and returns the replies. Raises what the call ends with.

    The handler must read the message: grpc.aio's clients report INTERNAL if the call ends while they send.
    """
    how.setdefault("timeout", SECONDS)
    call = start(iter([data]), **how)
    return [reply async for reply in call]


async def code_of(start: Any, timeout: float | None = SECONDS) -> grpc.StatusCode:
    """Starts a call without a message."""
    code: grpc.StatusCode = await start(timeout=timeout).code()
    return code


class Cancelled:
    """A handler that waits until it is cancelled. started, cancelled: whether that has happened."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def answer(self, call: Any) -> bytes:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""
