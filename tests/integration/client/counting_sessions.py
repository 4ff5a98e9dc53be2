"""The calls of the counting server that open, move and read sessions."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from cellkeeper import Position
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperServicer

from .counting_record import Record, fresh
from .counting_wire import CODES, Refused, details, message_of, position_of

FINGERPRINT = bytes(range(32))
OTHER_FINGERPRINT = bytes(32)  # of a version that takes missing values


class CountingSessions(CellkeeperServicer):
    """records: survive the server if the test passes them to the next one.

    Hooks: lose_calls: so many calls are carried out, and not answered. refusals: what the next items are refused with.
    """

    def __init__(self, records: dict[str, Record] | None = None) -> None:
        self.records = {} if records is None else records
        self.lose_calls = 0
        self.refusals: list[Refused] = []
        self.of_other_version: set[str] = set()  # sessions
        self.request_ids: list[bytes] = []
        self.applied_steps = 0

    def decide(
        self, session: str, packed: bytes, inputs: bytes, peek: bool = False
    ) -> tuple[Position, np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
        """Returns (position after, outputs [T, 2], state, flags) according to the contract's table."""
        record = self.records.get(session)
        if record is None:
            raise Refused("SESSION_NOT_FOUND")
        before = record.position.step
        decided = record.decide(packed, inputs, peek)
        self.applied_steps += record.position.step - before
        return decided

    async def Open(self, request: Any, context: Any) -> Any:
        try:
            opened = self._opened(request)
        except Refused as refused:
            await self._abort(context, refused)
            raise
        await self._maybe_lose(context)
        return opened

    async def OpenMany(self, request: Any, context: Any) -> Any:
        results = []
        for item in request.items:
            try:
                if self.refusals:
                    raise self.refusals.pop(0)
                results.append(pb.OpenManyResponse.Result(opened=self._opened(item)))
            except Refused as refused:  # noqa: PERF203 - each item fails on its own
                results.append(pb.OpenManyResponse.Result(error=refused.wire()))
        await self._maybe_lose(context)
        return pb.OpenManyResponse(results=results)

    def _opened(self, item: Any) -> Any:
        """item: an OpenRequest, or an item of OpenManyRequest, which has the same fields."""
        self.request_ids.append(item.request_id)
        record = self.records.get(item.session)
        created = record is None
        if record is None:
            if item.HasField("expect"):
                raise Refused("SESSION_NOT_FOUND")
            total = np.frombuffer(item.initial_state[0].data, "<f4").copy() if item.initial_state else None
            record = self.records[item.session] = fresh(item.request_id, 0, total)
            record.ttl_ms = item.ttl_ms if item.HasField("ttl_ms") else 0
        elif item.HasField("expect"):
            self.decide(item.session, position_of(item.expect).pack(), b"", peek=True)
        return pb.OpenResponse(
            position=message_of(record.position),
            created=created or record.origin == item.request_id,
            fingerprint=OTHER_FINGERPRINT if item.session in self.of_other_version else FINGERPRINT,
            ttl_ms=record.ttl_ms,
        )

    async def Reset(self, request: Any, context: Any) -> Any:
        item = request.items[0]
        return await self._reborn(item, context, lambda _: fresh(item.request_id))

    async def SetState(self, request: Any, context: Any) -> Any:
        item = request.items[0]
        total = np.frombuffer(item.state[0].data, "<f4").copy()
        return await self._reborn(item, context, lambda _: fresh(item.request_id, item.step, total))

    async def _reborn(self, item: Any, context: Any, make: Any) -> Any:
        self.request_ids.append(item.request_id)
        record = self.records.get(item.session)
        try:
            if record is None:
                raise Refused("SESSION_NOT_FOUND")
            if record.origin != item.request_id:
                if record.position.generation != item.generation:
                    raise Refused("GENERATION_CHANGED", record.position)
                record = self.records[item.session] = make(record)
        except Refused as refused:
            return pb.SessionResults(results=[pb.SessionResult(error=refused.wire())])
        await self._maybe_lose(context)
        return pb.SessionResults(results=[pb.SessionResult(position=message_of(record.position))])

    async def Fork(self, request: Any, context: Any) -> Any:
        item = request.items[0]
        self.request_ids.append(item.request_id)
        source, target = self.records.get(item.source), self.records.get(item.target)
        try:
            if source is None:
                raise Refused("SESSION_NOT_FOUND")
            if target is not None and target.origin != item.request_id:
                raise Refused("SESSION_EXISTS", target.position)
            if item.HasField("position") and item.position.step > source.position.step:
                raise Refused("STEP_GAP", source.position)
            at = item.position.step - source.checkpoint_step if item.HasField("position") else -1
            if target is None:
                step, total = source.positions[at].step, source.totals[at]
                target = self.records[item.target] = fresh(item.request_id, step, total)
        except Refused as refused:
            return pb.SessionResults(results=[pb.SessionResult(error=refused.wire())])
        await self._maybe_lose(context)
        return pb.SessionResults(results=[pb.SessionResult(position=message_of(target.position))])

    async def Delete(self, request: Any, context: Any) -> Any:
        results = []
        for item in request.items:
            record = self.records.get(item.session)
            found = record is not None and record.position.generation == item.generation
            if found:
                del self.records[item.session]
            results.append(pb.SessionResult(deleted=found))
        await self._maybe_lose(context)
        return pb.SessionResults(results=results)

    async def GetState(self, request: Any, context: Any) -> Any:
        record = await self._record(request.session, context)
        tensor = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 2], data=record.totals[-1].astype("<f4").tobytes())
        return pb.GetStateResponse(position=message_of(record.position), state=[tensor])

    async def GetSession(self, request: Any, context: Any) -> Any:
        return self._info(request.session, await self._record(request.session, context))

    async def ListSessions(self, request: Any, context: Any) -> Any:
        names = sorted(name for name in self.records if name.startswith(request.prefix))
        start, size = int(request.page_token or 0), request.page_size or 2
        page = names[start : start + size]
        token = str(start + size) if start + size < len(names) else ""
        infos = [self._info(name, self.records[name]) for name in page]
        return pb.ListSessionsResponse(sessions=infos, next_page_token=token)

    async def ListModels(self, request: Any, context: Any) -> Any:
        return pb.ListModelsResponse(models=[self._model()])

    async def GetModel(self, request: Any, context: Any) -> Any:
        if request.model not in ("", "count"):
            await self._abort(context, Refused("INVALID_FIELD", None, f"model: got {request.model!r}"))
        return self._model(request.fingerprint or FINGERPRINT)

    def _model(self, fingerprint: bytes = FINGERPRINT) -> Any:
        return pb.ModelInfo(
            name="count",
            fingerprint=fingerprint,
            missing_values=fingerprint == OTHER_FINGERPRINT,
            numerics="counting 1",
            exact=True,
            engine="python",
            device="cpu",
            input=pb.TensorSpec(name="input", dtype=pb.FLOAT32, shape=[2]),
            outputs=[
                pb.TensorSpec(name="prediction", dtype=pb.FLOAT32, shape=[2]),
                pb.TensorSpec(name="hidden", dtype=pb.FLOAT32, shape=[2]),
            ],
            states=[pb.TensorSpec(name="h", dtype=pb.FLOAT32, shape=[1, 2])],
            max_chunk_steps=32,
            max_frame_items=256,
            max_log_steps=1024,
        )

    def _info(self, name: str, record: Record) -> Any:
        return pb.SessionInfo(
            session=name,
            position=message_of(record.position),
            fingerprint=FINGERPRINT,
            checkpoint_step=record.checkpoint_step,
            ttl_ms=record.ttl_ms,
        )

    async def _record(self, session: str, context: Any) -> Record:
        record = self.records.get(session)
        if record is None:
            refused = Refused("SESSION_NOT_FOUND")
            await self._abort(context, refused)
            raise refused
        return record

    async def _maybe_lose(self, context: Any) -> None:
        """The call is carried out, but the caller does not learn of it."""
        if self.lose_calls:
            self.lose_calls -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut before it was answered")

    async def _abort(self, context: Any, refused: Refused) -> None:
        metadata = {}
        if refused.position is not None:
            where = refused.position
            metadata = {"generation": where.generation.hex(), "step": str(where.step), "head": where.head.hex()}
        if refused.field:
            metadata["field"] = refused.field
        found = next(code for code in grpc.StatusCode if code.value[0] == CODES[refused.reason])
        said = details(found, refused.reason, refused.message, metadata)
        await context.abort(found, refused.message, said)
