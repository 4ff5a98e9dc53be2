"""A small server of the contract for the client's tests: real gRPC, the real decision table, a model that counts.

The model takes two features and returns their running sums, as a real server does with a vanilla RNN of identity
weights. If the first feature is always 1, every later answer reveals a lost, doubled or misplaced step. Hooks make the
server lose replies, cut streams, refuse and wait.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
from cellkeeper import Position, first_position
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperServicer, add_CellkeeperServicer_to_server
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

STEP_BYTES = 8
FINGERPRINT = bytes(range(32))
OTHER_FINGERPRINT = bytes(32)  # of a version that takes missing values
REFUSED_VALUE = 1e6  # a second feature of this size or larger is "not finite"
_CODES = {
    "INVALID_FIELD": 3,
    "NON_FINITE_RESULT": 3,
    "DUPLICATE_SESSION": 3,
    "SESSION_NOT_FOUND": 5,
    "SESSION_EXISTS": 6,
    "GENERATION_CHANGED": 9,
    "MODEL_CHANGED": 9,
    "STEP_GAP": 9,
    "HISTORY_CHANGED": 10,
    "STEP_CONFLICT": 10,
    "COMMIT_CONFLICT": 10,
    "STEP_COMPACTED": 11,
    "QUEUE_FULL": 8,
    "STORE_UNAVAILABLE": 14,
    "DRAINING": 14,
    "INTERNAL_ERROR": 13,
}


class Refused(Exception):
    def __init__(
        self, reason: str, position: Position | None = None, message: str = "", delay_ms: int = 0, field: str = ""
    ) -> None:
        super().__init__(message or reason)
        self.reason, self.position, self.delay_ms, self.field = reason, position, delay_ms, field
        self.message = message or f"refused: {reason}"

    def wire(self) -> Any:
        where = self.position
        return pb.Error(
            code=_CODES[self.reason],
            reason=self.reason,
            message=self.message,
            field=self.field,
            position=None if where is None else message_of(where),
            retry_delay_ms=self.delay_ms,
        )


@dataclass
class Ending:
    """How the next stream or call ends.

    code: its status. reason: of this contract; empty: the status has no details, as one of a proxy or of gRPC itself.
    moment: "unread": before a frame is read; "read": a frame was read, and is not applied; "applied": it is applied,
    and not answered. frames: so many frames are applied and not answered, the last of them as `moment` says. times: so
    many streams or calls.
    """

    code: grpc.StatusCode
    reason: str = ""
    moment: str = "applied"
    frames: int = 1
    times: int = 1


def message_of(position: Position) -> Any:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def position_of(message: Any) -> Position:
    return Position(message.generation, message.step, message.head)


@dataclass
class Record:
    """One session: the positions and inputs from the checkpoint to its current step, and the state at each."""

    positions: list[Position]
    totals: list[np.ndarray[Any, Any]]  # state at each position, float32 [2]
    inputs: list[bytes] = field(default_factory=list)  # one fewer
    origin: bytes = b""
    ttl_ms: int = 0

    @property
    def position(self) -> Position:
        return self.positions[-1]

    @property
    def checkpoint_step(self) -> int:
        return self.positions[0].step

    def cut(self, steps: int) -> None:
        """Loses the last time steps, as the store's fail-over may."""
        del self.positions[-steps:], self.totals[-steps:], self.inputs[-steps:]

    def compact(self, step: int) -> None:
        """Makes a checkpoint: forgets the inputs before `step`."""
        gone = step - self.checkpoint_step
        del self.positions[:gone], self.totals[:gone], self.inputs[:gone]


def _details(code: grpc.StatusCode, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> Any:
    """Returns the trailing metadata with which a server of this contract says why it refuses."""
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="cellkeeper", metadata=metadata))
    status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
    return (("grpc-status-details-bin", status.SerializeToString()),)


def fresh(origin: bytes, step: int = 0, total: np.ndarray[Any, Any] | None = None) -> Record:
    start = np.zeros(2, np.float32) if total is None else total
    return Record([first_position(os.urandom(16), step)], [start], [], origin)


class CountingServer(CellkeeperServicer):
    """records: survive the server if the test passes them to the next one.

    Hooks: lose_replies: so many frames are applied, but the stream is closed instead of answered. cut_frames: so many
    frames close the stream unread. refusals: what the next items are refused with. gate: frames wait for it. backwards:
    replies have their items from the last to the first. ending: how the next stream or peek ends.
    """

    def __init__(self, records: dict[str, Record] | None = None) -> None:
        self.records = {} if records is None else records
        self.lose_replies = 0
        self.cut_frames = 0
        self.lose_calls = 0
        self.refusals: list[Refused] = []
        self.ending: Ending | None = None
        self.backwards = False
        self.of_other_version: set[str] = set()  # sessions
        self.gate = asyncio.Event()
        self.gate.set()
        self.streams = 0
        self.frames = 0
        self.applied_steps = 0
        self.request_ids: list[bytes] = []
        self.timeouts_ms: list[int] = []
        self.frame_sizes: list[int] = []
        self.ahead_steps: list[int] = []  # for each item, how far it was sent ahead of the acknowledged steps
        self.seen: list[tuple[str, bytes, bytes]] = []  # session, packed position, inputs: as they arrived
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> str:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        add_CellkeeperServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            await self._server.wait_for_termination()
            self._server = None

    # ------------------------------------------------------------------------------------------ steps

    def decide(
        self, session: str, packed: bytes, inputs: bytes, peek: bool = False
    ) -> tuple[Position, np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
        """Returns (position after, outputs [T, 2], state, flags) according to the contract's table."""
        record = self.records.get(session)
        sent = Position.unpack(packed)
        steps = len(inputs) // STEP_BYTES
        if record is None:
            raise Refused("SESSION_NOT_FOUND")
        stands = record.position
        if sent.generation != stands.generation:
            raise Refused("GENERATION_CHANGED", stands)
        if sent.step > stands.step:
            raise Refused("STEP_GAP", stands)
        if sent.step < record.checkpoint_step:
            raise Refused("STEP_COMPACTED", stands)
        at = sent.step - record.checkpoint_step
        if record.positions[at].head != sent.head:
            raise Refused("HISTORY_CHANGED", stands)
        if sent.step < stands.step:
            logged = b"".join(record.inputs[at : at + steps])
            if sent.step + steps > stands.step or logged != inputs:
                raise Refused("STEP_CONFLICT", stands)
            totals = record.totals[at + 1 : at + steps + 1]
            return record.positions[at + steps], np.array(totals), totals[-1], 2
        position, total = stands, record.totals[-1]
        positions, totals, chunks = [], [], []
        for start in range(0, len(inputs), STEP_BYTES):
            one = inputs[start : start + STEP_BYTES]
            values = np.frombuffer(one, "<f4")
            if values[1] >= REFUSED_VALUE:
                raise Refused("NON_FINITE_RESULT", stands, "the state would not be finite")
            position = position.advance(one, STEP_BYTES)
            total = total + values
            positions.append(position)
            totals.append(total)
            chunks.append(one)
        if not peek:
            record.positions += positions
            record.totals += totals
            record.inputs += chunks
            self.applied_steps += steps
        return position, np.array(totals), total, 0

    def answer(self, frame: Any) -> Any:
        counts = list(frame.steps) or [1] * len(frame.sessions)
        items, positions, flags, errors = [], [], [], []
        rows: list[np.ndarray[Any, Any]] = []
        states: list[np.ndarray[Any, Any]] = []
        taken: set[str] = set()
        first = 0
        for index, (session, steps) in enumerate(zip(frame.sessions, counts, strict=True)):
            inputs = frame.inputs[first * STEP_BYTES : (first + steps) * STEP_BYTES]
            packed = frame.positions[index * 32 : index * 32 + 32]
            self.seen.append((session, packed, inputs))
            acked = int.from_bytes(frame.acked[index * 8 : index * 8 + 8], "little")
            self.ahead_steps.append(Position.unpack(packed).step - acked)
            first += steps
            try:
                if session in taken:
                    raise Refused("DUPLICATE_SESSION")
                taken.add(session)
                if self.refusals:
                    raise self.refusals.pop(0)
                position, outputs, state, flag = self.decide(session, packed, inputs, frame.peek)
            except Refused as refused:
                errors.append(pb.ItemError(item=index, error=refused.wire()))
                continue
            items.append(index)
            positions.append(position.pack())
            flags.append(flag)
            rows.append(outputs)
            states.append(state)
        if self.backwards:
            for column in (items, positions, flags, rows, states):
                column.reverse()
        columns = []
        stacked = np.concatenate(rows).astype("<f4") if rows else np.zeros((0, 2), "<f4")
        for name in list(frame.outputs) or ["prediction"]:
            if name == "prediction":
                columns.append(pb.OutputColumn(name=name, dtype=pb.FLOAT32, shape=[2], data=stacked.tobytes()))
            elif name == "hidden":
                data = stacked.tobytes()
                columns.append(pb.OutputColumn(name=name, dtype=pb.FLOAT32, shape=[2], data=data))
            elif name == "state":
                data = b"".join(state.astype("<f4").tobytes() for state in states)
                columns.append(
                    pb.OutputColumn(name="state.h", dtype=pb.FLOAT32, shape=[1, 2], per_item=True, data=data)
                )
        return pb.StepFrameReply(
            frame_id=frame.frame_id,
            items=struct.pack(f"<{len(items)}I", *items),
            positions=b"".join(positions),
            steps=[counts[item] for item in items],
            outputs=columns,
            flags=bytes(flags),
            errors=errors,
            last=True,
        )

    async def StepStream(self, frames: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.streams += 1
        unanswered = 0
        if self.ends("unread"):
            await self._end(context)
        async for frame in frames:
            self.frames += 1
            self.timeouts_ms.append(frame.timeout_ms)
            self.frame_sizes.append(len(frame.sessions))
            if self.cut_frames:
                self.cut_frames -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut before it was read")
            await self.gate.wait()
            unanswered += 1
            if self.ends("read", unanswered):
                await self._end(context)
            reply = self.answer(frame)
            if self.ends("applied", unanswered):
                await self._end(context)
            if self.ending is not None:
                continue
            unanswered = 0
            if self.lose_replies:
                self.lose_replies -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut before it was answered")
            yield reply

    def ends(self, moment: str, frames: int = 1) -> bool:
        """Returns True if the stream ends here."""
        ending = self.ending
        return ending is not None and (ending.moment, ending.frames) == (moment, frames)

    def take_ending(self) -> Ending:
        """Counts a stream or call that ends."""
        ending = self.ending
        assert ending is not None
        ending.times -= 1
        if not ending.times:
            self.ending = None
        return ending

    async def _end(self, context: Any) -> None:
        ending = self.take_ending()
        details = _details(ending.code, ending.reason, "ended") if ending.reason else ()
        await context.abort(ending.code, "ended", details)

    async def StepBatch(self, request: Any, context: Any) -> Any:
        if self.ending is not None:
            await self._end(context)
        return self.answer(request)

    async def Step(self, request: Any, context: Any) -> Any:
        if self.ending is not None:
            await self._end(context)
        try:
            position, outputs, _, flag = self.decide(
                request.session, position_of(request.position).pack(), request.inputs, request.peek
            )
        except Refused as refused:
            await self._abort(context, refused)
            raise
        return pb.StepResponse(
            outputs=[
                pb.Tensor(
                    name="prediction",
                    dtype=pb.FLOAT32,
                    shape=outputs.shape,
                    data=outputs.astype("<f4").tobytes(),
                )
            ],
            position=message_of(position),
            replayed=flag == 2,
        )

    # ------------------------------------------------------------------------------------------ generations

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

    # ------------------------------------------------------------------------------------------ reading

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
        found = next(code for code in grpc.StatusCode if code.value[0] == _CODES[refused.reason])
        details = _details(found, refused.reason, refused.message, metadata)
        await context.abort(found, refused.message, details)
