"""An open stream of frames, as `Stream` uses it, and its implementation over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from ..errors import CellkeeperError, Unavailable
from .wire import from_grpc

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
_NONE = grpc.aio.Metadata()

REFUSED = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The server refuses the stream with these, and would do so again. After any other status the stream is reopened."""


class CallEnded(Exception):
    """The stream has ended.

    error: why. is_refusal: a server of this contract has refused it, or it was never open. Such a server answers what
    it has read before it refuses the rest, so that nothing without an answer was applied.
    """

    def __init__(self, error: CellkeeperError, is_refusal: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_refusal = is_refusal


class StreamCall(Protocol):
    """One open stream: frames in one direction, replies in the other."""

    async def write(self, frame: Any) -> None:
        """Sends a pb.StepFrame. Returns when there is room for the next. Raises CallEnded."""

    async def deliver(self, take: Callable[[Any], None]) -> NoReturn:
        """Calls `take` with each pb.StepFrameReply as soon as it is there. Raises CallEnded, and what `take` raises."""

    async def done_writing(self) -> None:
        """Tells the server that no more frames follow. The server ends the stream once it has answered everything."""

    def cancel(self) -> None:
        """Ends the stream immediately: what is pending raises CallEnded."""


def lost(target: str, why: str, retry_delay_ms: int = 0) -> CallEnded:
    """Returns the error of a stream to `target` that ended by no decision of the server; it may be reopened."""
    return CallEnded(Unavailable(f"{target} {why}", reason="LOST", retry_delay_ms=retry_delay_ms))


def ended_as(code: grpc.StatusCode | None, error: CellkeeperError) -> CallEnded:
    """Returns the error of a stream that ended with a status.

    Proxies, gateways and gRPC itself end streams with any status and at any moment, but give none of our reasons.
    """
    if code in REFUSED:
        return CallEnded(error, is_refusal=bool(error.reason))
    return CallEnded(Unavailable(error.message, reason="LOST", retry_delay_ms=error.retry_delay_ms))


class UnopenedCall:
    """A StreamCall that cannot be opened. error: why; it ends whatever is begun, and so the steps that wait."""

    def __init__(self, error: CellkeeperError) -> None:
        self._ended = CallEnded(error, is_refusal=True)

    async def write(self, *_: object) -> NoReturn:
        raise self._ended

    deliver = done_writing = write

    def cancel(self) -> None:
        """Nothing is open."""


class GrpcCall:
    """A StreamCall over gRPC."""

    def __init__(self, call: Any, target: str) -> None:
        """call: the result of the stub's StepStream."""
        self._call = call
        self._target = target

    async def write(self, frame: Any) -> None:
        try:
            await self._call.write(frame)
        except (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            raise lost(self._target, "ended the stream") from None

    async def deliver(self, take: Callable[[Any], None]) -> NoReturn:
        while True:
            take(await self._read())

    async def done_writing(self) -> None:
        await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()

    # ------------------------------------------------------------------------------------------ inside

    async def _read(self) -> Any:
        try:
            reply = await self._call.read()
        except grpc.RpcError as error:
            raise self._ended(error) from None
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise  # the reader's own cancellation
            raise lost(self._target, "lost its stream, which the client cancelled") from None
        if reply is _EOF:
            code, details = await self._call.code(), await self._call.details()
            if code is grpc.StatusCode.OK:
                raise lost(self._target, "ended the stream")
            raise self._ended(grpc.aio.AioRpcError(code, _NONE, _NONE, details, None))
        return reply

    def _ended(self, error: grpc.RpcError) -> CallEnded:
        found = from_grpc(error, self._target)
        return ended_as(error.code() if isinstance(error, grpc.aio.AioRpcError) else None, found)
