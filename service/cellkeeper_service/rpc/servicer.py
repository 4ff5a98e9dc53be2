"""The service's RPCs: each reads its request, lets it be done, and writes the reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any, TypeVar

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1 import cellkeeper_pb2_grpc

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.errors import Reason, Rejection, invalid
from cellkeeper_service.scheduler.scheduler import Scheduler
from cellkeeper_service.sessions.requests import Done, GetSession, GetState

from . import lives, reading
from .catalog import Catalog
from .decoding import Malformed
from .frame_replies import FrameReplies
from .frames import read_frame
from .status import abort
from .steps import read_step, write_step
from .stream import Stream
from .waiting import Context, deadline, replies_to, reply_to

log = logging.getLogger(__name__)
Message = TypeVar("Message")
Method = Callable[["Servicer", Any, Context], Awaitable[Message]]


class Decided(Exception):
    """A rejection that was decided, and counted, with the sessions: not by looking at the request alone."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


def answering(method: Method[Message]) -> Method[Message]:
    """Turns a Rejection, raised or returned by whoever was asked, into the call's status; hides any other error."""

    @wraps(method)
    async def answer(self: Servicer, request: Any, context: Context) -> Message:
        try:
            if isinstance(request, Malformed):
                raise request.rejection()
            return await method(self, request, context)
        except Decided as decided:
            await abort(context, decided.rejection, method.__name__)
        except Rejection as rejection:
            why = rejection
        except StoreError as error:
            why = Rejection(Reason.STORE_UNAVAILABLE, str(error), retry_delay_ms=200)
        except Exception:
            log.exception("%s failed", method.__name__)
            why = Rejection(Reason.INTERNAL_ERROR, "internal error; the server's log has the cause")
        self._meter.rejected(why.reason.value)
        return await abort(context, why, method.__name__)

    return answer


def admitted(method: Method[Message]) -> Method[Message]:
    """Reads the call's message itself, once it is known that there is room for what it asks: under overload most calls
    are refused, and an unread one costs least."""

    @wraps(method)
    async def answer(self: Servicer, unread: Any, context: Context) -> Message:
        came = time.monotonic()
        full = self._scheduler.admit(self._deadline(context))
        if full is not None:
            return await abort(context, full, method.__name__)
        request = await context.read()
        if request is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise asyncio.CancelledError("the caller left before its message came")
        reply = await method(self, request, context)
        self._scheduler.answered(came)
        return reply

    return answer


class Servicer(cellkeeper_pb2_grpc.CellkeeperServicer):
    def __init__(self, catalog: Catalog, scheduler: Scheduler, meter: Meter) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._meter = meter
        self._streams: set[Stream] = set()
        self._finishing = False
        self._no_streams = asyncio.Event()
        self._no_streams.set()

    async def end_streams(self, patience_seconds: float) -> None:
        """Asks the clients to end their streams, and ends those that are left after so long. No further one begins."""
        self._finishing = True
        for stream in self._streams:
            stream.announce_end()
        try:
            await asyncio.wait_for(self._no_streams.wait(), patience_seconds)
        except asyncio.TimeoutError:
            for stream in self._streams:
                stream.finish()

    @answering
    async def Open(self, request: pb.OpenRequest, context: Context) -> pb.OpenResponse:
        maker = lives.read_open(request, self._catalog, self._deadline(context))
        return lives.write_open(_checked(await reply_to(self._scheduler, maker)))

    @admitted
    @answering
    async def Step(self, request: pb.StepRequest, context: Context) -> pb.StepResponse:
        maker = read_step(request, self._catalog, self._deadline(context))
        return write_step(_checked(await reply_to(self._scheduler, maker)))

    @admitted
    @answering
    async def StepBatch(self, request: pb.StepFrame, context: Context) -> pb.StepFrameReply:
        self._meter.frame("in", len(request.sessions))
        frame = read_frame(request, self._catalog, latest=self._deadline(context), needs_positions=False)
        size = sum(
            self._catalog.check_reply_size(steps, frame.outputs, frame.with_state, frame.spec) for steps in frame.steps
        )
        room = self._catalog.limits.max_message_bytes // 2
        if size > room:
            text = f"outputs: the reply would have {size} bytes, expected at most {room}; send fewer items"
            raise Rejection(Reason.REPLY_TOO_LARGE, text, field="outputs")
        future: asyncio.Future[pb.StepFrameReply] = asyncio.get_running_loop().create_future()

        def send(reply: pb.StepFrameReply) -> None:
            if not future.done():
                future.set_result(reply)

        replies = FrameReplies(request.frame_id, frame, send, whole=True)
        replies.submit(self._scheduler, self._meter)
        try:
            reply = await future
        except asyncio.CancelledError:
            replies.abandon()
            raise
        self._meter.frame("out", len(frame))
        return reply

    async def StepStream(
        self, frames: AsyncIterator[pb.StepFrame], context: Context
    ) -> AsyncIterator[pb.StepFrameReply]:
        latest = self._deadline(context) if context.time_remaining() is not None else None
        stream = Stream(self._catalog, self._scheduler, self._meter, latest)
        if self._finishing:  # it came just before its connection was told
            return
        self._streams.add(stream)
        self._no_streams.clear()
        try:
            async with aclosing(stream.replies(frames)) as replies:
                async for reply in replies:
                    yield reply
        except Rejection as rejection:
            self._meter.rejected(rejection.reason.value)
            await abort(context, rejection, "StepStream")
        except Exception:
            log.exception("StepStream failed")
            why = Rejection(Reason.INTERNAL_ERROR, "internal error; the server's log has the cause")
            await abort(context, why, "StepStream")
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._no_streams.set()

    @answering
    async def Reset(self, request: pb.ResetRequest, context: Context) -> pb.SessionResults:
        makers = lives.read_resets(request, self._catalog, self._deadline(context))
        return await self._change(makers)

    @answering
    async def SetState(self, request: pb.SetStateRequest, context: Context) -> pb.SessionResults:
        makers = lives.read_set_states(request, self._catalog, self._deadline(context))
        return await self._change(makers)

    @answering
    async def CarryOver(self, request: pb.CarryOverRequest, context: Context) -> pb.SessionResults:
        makers = lives.read_carry_overs(request, self._catalog, self._deadline(context))
        return await self._change(makers)

    @answering
    async def Fork(self, request: pb.ForkRequest, context: Context) -> pb.SessionResults:
        makers = lives.read_forks(request, self._catalog, self._deadline(context))
        return await self._change(makers)

    @answering
    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.SessionResults:
        makers = lives.read_deletes(request, self._catalog, self._deadline(context))
        return await self._change(makers)

    @answering
    async def GetState(self, request: pb.GetStateRequest, context: Context) -> pb.GetStateResponse:
        name, _ = self._catalog.find(request.model)
        key, until = self._catalog.key(name, request.session), self._deadline(context)

        def make(done: Done) -> GetState:
            return GetState(key, until, done)

        return reading.state_response(_checked(await reply_to(self._scheduler, make)))

    @answering
    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.SessionInfo:
        name, _ = self._catalog.find(request.model)
        key, until = self._catalog.key(name, request.session), self._deadline(context)

        def make(done: Done) -> GetSession:
            return GetSession(key, until, done)

        reply = _checked(await reply_to(self._scheduler, make))
        return reading.session_info(request.session, reply.header, reply.hot)

    @answering
    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        name, _ = self._catalog.find(request.model)
        limit = reading.page_size(request)
        try:
            page = await self._scheduler.store_calls.scan(
                self._catalog.tenant, name, request.prefix, request.page_token, limit
            )
        except ValueError as error:
            raise invalid("page_token", repr(request.page_token), "the next_page_token of an earlier page") from error
        infos = [
            reading.session_info(key.session, header, self._scheduler.sessions.is_hot(key))
            for key, header in page.sessions
        ]
        return pb.ListSessionsResponse(sessions=infos, next_page_token=page.cursor)

    @answering
    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        infos = [
            reading.model_info(served, self._catalog.limits)
            for models in self._catalog.models.values()
            for served in models
        ]
        return pb.ListModelsResponse(models=infos)

    @answering
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.ModelInfo:
        return reading.model_info(self._catalog.version(request.model, request.fingerprint), self._catalog.limits)

    async def _change(self, makers: list[lives.Maker]) -> pb.SessionResults:
        for maker in makers:
            if isinstance(maker, Rejection):
                self._meter.rejected(maker.reason.value)
        return lives.write_results(await replies_to(self._scheduler, makers))

    def _deadline(self, context: Context) -> float:
        return deadline(context, self._catalog.limits.default_timeout_ms)


def _checked(result: Any) -> Any:
    """The result. Raises Decided if it is a Rejection."""
    if isinstance(result, Rejection):
        raise Decided(result)
    return result
