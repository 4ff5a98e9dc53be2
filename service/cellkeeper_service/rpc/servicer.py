"""The service's RPCs: each reads its request, submits it to the core, and writes the reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.generation_requests import OpenReply
from cellkeeper_service.core.requests import GetState
from cellkeeper_service.errors import Reason, Rejection, invalid

from . import generations, reading
from .answering import Answering, Call, admitted, answering, checked
from .call_context import CallContext
from .catalog import Catalog
from .frame_replies import FrameReplies, refused_items
from .frames import read_frame
from .steps import read_step, write_step
from .stream import Stream
from .waiting import Maker, replies_to, reply_to, settle

Message = TypeVar("Message")


class Servicer(Answering):
    @answering
    async def Open(self, request: pb.OpenRequest, call: Call) -> pb.OpenResponse:
        (result,) = await self._open(request.model, [request], call, alone=True)
        return generations.write_open(checked(result))

    @answering
    async def OpenMany(self, request: pb.OpenManyRequest, call: Call) -> pb.OpenManyResponse:
        return generations.write_opens(await self._open(request.model, request.items, call))

    @admitted
    async def Step(self, request: pb.StepRequest, call: Call) -> pb.StepResponse:
        try:
            maker = read_step(request, call.catalog, call.deadline)
        except Rejection as refused:
            raise (await self.reasons(refused, request.model, [request.session], call))[0] from None
        return write_step(checked(await reply_to(self.core, maker)))

    @admitted
    async def StepBatch(self, request: pb.StepFrame, call: Call) -> pb.StepFrameReply:
        self.meter.frame("in", len(request.sessions))
        try:
            frame = read_frame(request, call.catalog, latest=call.deadline, needs_positions=False)
        except Rejection as refused:
            reasons = await self.reasons(refused, request.model, request.sessions, call)
            if set(reasons) <= {refused}:
                raise
            return refused_items(request.frame_id, reasons, self.meter)
        size = sum(
            call.catalog.check_reply_size(steps, frame.outputs, frame.with_state, frame.spec) for steps in frame.steps
        )
        room = call.catalog.limits.max_message_bytes // 2
        if size > room:
            text = f"outputs: the reply would have {size} bytes, expected at most {room}; send fewer items"
            raise Rejection(Reason.REPLY_TOO_LARGE, text, field="outputs")
        future: asyncio.Future[pb.StepFrameReply] = asyncio.get_running_loop().create_future()
        replies = FrameReplies(request.frame_id, frame, partial(settle, future), whole=True)
        replies.submit(self.core, self.meter, call.charge.refused)
        try:
            reply = await future
        except asyncio.CancelledError:
            replies.abandon()
            raise
        self.meter.frame("out", len(frame))
        return reply

    def StepStream(self, context: CallContext) -> AsyncGenerator[list[pb.StepFrameReply], None]:
        return self.stream("StepStream", context, Stream)

    @answering
    async def Reset(self, request: pb.ResetRequest, call: Call) -> pb.SessionResults:
        return await self._change(generations.read_resets, request, call)

    @answering
    async def SetState(self, request: pb.SetStateRequest, call: Call) -> pb.SessionResults:
        return await self._change(generations.read_set_states, request, call)

    @answering
    async def CarryOver(self, request: pb.CarryOverRequest, call: Call) -> pb.SessionResults:
        return await self._change(generations.read_carry_overs, request, call)

    @answering
    async def Fork(self, request: pb.ForkRequest, call: Call) -> pb.SessionResults:
        return await self._change(generations.read_forks, request, call)

    @answering
    async def Delete(self, request: pb.DeleteRequest, call: Call) -> pb.SessionResults:
        results = await self._change(generations.read_deletes, request, call)
        model, _ = call.catalog.find(request.model)
        for item, result in zip(request.items, results.results, strict=True):
            if result.deleted:
                call.caller.allowance.forget(model, item.session)
        return results

    @answering
    async def GetState(self, request: pb.GetStateRequest, call: Call) -> pb.GetStateResponse:
        key, until = call.catalog.key(request.model, request.session), call.deadline
        reply = await reply_to(self.core, lambda done: GetState(key, until, done))
        response = reading.state_response(checked(reply))
        call.catalog.check_state_reply(response.ByteSize())
        return response

    @answering
    async def GetSession(self, request: pb.GetSessionRequest, call: Call) -> pb.SessionInfo:
        key = call.catalog.key(request.model, request.session)
        reply = await reading.read_session(self.core, key, call.deadline)
        return reading.session_info(request.session, reply.header, reply.hot)

    @answering
    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> pb.ListSessionsResponse:
        return await self._page(request, call)

    async def _page(self, request: pb.ListSessionsRequest, call: Call) -> pb.ListSessionsResponse:
        name, _ = call.catalog.find(request.model)
        limit = reading.page_size(request, call.catalog.limits)
        try:
            page = await self.core.store_calls.scan(
                call.catalog.tenant, name, request.prefix, request.page_token, limit
            )
        except ValueError as error:
            raise invalid("page_token", repr(request.page_token), "the next_page_token of an earlier page") from error
        infos = [reading.listed(key.session, found, self.core.is_cached(key)) for key, found in page.sessions]
        return pb.ListSessionsResponse(sessions=infos, next_page_token=page.cursor)

    @answering
    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        infos = [
            reading.model_info(served, call.catalog.limits)
            for models in call.catalog.models.values()
            for served in models
        ]
        return pb.ListModelsResponse(models=infos)

    @answering
    async def GetModel(self, request: pb.GetModelRequest, call: Call) -> pb.ModelInfo:
        return reading.model_info(call.catalog.version(request.model, request.fingerprint), call.catalog.limits)

    async def _open(
        self, model: str, items: Sequence[generations.OpenFields], call: Call, *, alone: bool = False
    ) -> list[OpenReply | Rejection]:
        """Returns one result for each item. alone: see generations.read_opens."""
        makers = generations.read_opens(model, items, call.catalog, call.deadline, alone=alone)
        refused = {index: maker for index, maker in enumerate(makers) if isinstance(maker, Rejection)}
        asked = [self.reasons(why, model, [items[index].session], call) for index, why in refused.items()]
        for index, (why,) in zip(refused, await asyncio.gather(*asked), strict=True):
            makers[index] = why
        return await self._results(makers, call)

    async def _change(
        self, read: Callable[[Message, Catalog, float], list[Maker]], request: Message, call: Call
    ) -> pb.SessionResults:
        makers = read(request, call.catalog, call.deadline)
        return generations.write_results(await self._results(makers, call))

    async def _results(self, makers: list[Maker], call: Call) -> list[Any]:
        """Returns one result, or a Rejection, for each item. Counts the items that are refused here."""
        for index, why in call.charge.refused.items():
            makers[index] = why
        for maker in makers:
            if isinstance(maker, Rejection):
                self.meter.rejected(maker.reason.value)
        return await replies_to(self.core, makers)
