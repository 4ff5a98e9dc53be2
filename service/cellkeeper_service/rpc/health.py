"""gRPC's health and reflection services. They answer everybody, within bounds on what that can cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cellkeeper_service.errors import Reason, Rejection, invalid

from .call_context import EOF, CallContext
from .call_log import abort
from .codec import decoder
from .contract import pool_of, proto_of, services_of
from .method import Method
from .unread import RETRY_DELAY_MS, Unread

MAX_WATCHES = 256
"""Limit on open Watch calls. They need no token and may stay open forever; each load balancer has one."""
MAX_REFLECTIONS = 16
"""Limit on open reflection calls. People make them, and they are short."""
MAX_MESSAGE_BYTES = 4096
"""Limit on a request, which holds the name of a service or a symbol."""
TIMEOUT_MS = 5000
"""From the start of a call to its message, and between two reflection requests."""
MOST_UNREAD, MOST_SLOW = 256, 16


class Public:
    """The handlers of both services.

    Messages are read with a time limit, like those of the main service.
    """

    def __init__(self) -> None:
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._unread = Unread(TIMEOUT_MS, MOST_UNREAD, MOST_SLOW)
        self._watches = 0
        self._reflections = 0

    async def set_status(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        await self._health.set(service, status)

    def health_methods(self) -> dict[str, Method]:
        decode = _decoder(health_pb2.HealthCheckRequest)
        encode = health_pb2.HealthCheckResponse.SerializeToString
        return {
            f"/{health.SERVICE_NAME}/Check": Method(self._check, decode, encode),
            f"/{health.SERVICE_NAME}/Watch": Method(self._watch, decode, encode, streams=True),
        }

    def reflection_methods(self, contracts: Sequence[FileDescriptorProto]) -> dict[str, Method]:
        """contracts: the files of the services other than health and reflection."""
        every = [*contracts, proto_of(health_pb2.DESCRIPTOR), proto_of(reflection_pb2.DESCRIPTOR)]
        servicer = reflection.aio.ReflectionServicer(services_of(every), pool_of(every))  # type: ignore[attr-defined]
        decode = _decoder(reflection_pb2.ServerReflectionRequest)
        encode = reflection_pb2.ServerReflectionResponse.SerializeToString

        async def reflect(context: CallContext) -> AsyncIterator[Any]:
            if self._reflections >= MAX_REFLECTIONS:
                await _full(context, f"{MAX_REFLECTIONS} reflection calls are open")
            self._reflections += 1
            try:
                while (request := await self._request(context)) is not EOF:
                    yield [reply async for reply in servicer.ServerReflectionInfo(_one(request), context)]
            finally:
                self._reflections -= 1

        path = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
        return {path: Method(reflect, decode, encode, streams=True)}

    async def _check(self, context: CallContext) -> Any:
        return await self._health.Check(await self._first_request(context), context)

    async def _watch(self, context: CallContext) -> None:
        request = await self._first_request(context)
        if self._watches >= MAX_WATCHES:
            await _full(context, f"{MAX_WATCHES} watches are open")
        self._watches += 1
        try:
            await self._health.Watch(request, context)
        finally:
            self._watches -= 1

    async def _first_request(self, context: CallContext) -> Any:
        request = await self._request(context)
        if request is EOF:
            raise asyncio.CancelledError("the caller left before its message arrived")
        return request

    async def _request(self, context: CallContext) -> Any:
        """Returns the next request, or EOF. Ends the call if the request is unacceptable."""
        try:
            return await self._unread.read(context)
        except Rejection as why:
            await abort(context, why)


def _decoder(message: Any) -> Callable[[bytes], Any]:
    """Returns a function from bytes to the message, which raises a Rejection if they are not one, or too many."""
    decode = decoder(message, MAX_MESSAGE_BYTES)

    def decode_small(data: bytes) -> Any:
        if len(data) > MAX_MESSAGE_BYTES:
            raise invalid("request", f"{len(data)} bytes", f"at most {MAX_MESSAGE_BYTES}")
        return decode(data)

    return decode_small


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


async def _full(context: CallContext, text: str) -> None:
    await abort(context, Rejection(Reason.QUEUE_FULL, f"{text}, the maximum", retry_delay_ms=RETRY_DELAY_MS))
