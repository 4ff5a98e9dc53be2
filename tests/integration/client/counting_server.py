"""A small server of the contract for the client's tests: real gRPC, the real decision table, a model that counts.

The model takes two features and returns their running sums, as a real server does with a vanilla RNN of identity
weights. If the first feature is always 1, every later answer reveals a lost, doubled or misplaced step. Hooks make the
server lose replies, cut streams, refuse and wait.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
from cellkeeper import Position
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import add_CellkeeperServicer_to_server

from .counting_record import STEP_BYTES, Record
from .counting_sessions import CountingSessions
from .counting_wire import Ending, Refused, details, message_of, position_of


class CountingServer(CountingSessions):
    """Hooks beside those of the sessions' calls: lose_replies: so many frames are applied, but the stream is closed
    instead of answered. cut_frames: so many frames close the stream unread. gate: frames wait for it. backwards:
    replies have their items from the last to the first. ending: how the next stream or peek ends.
    """

    def __init__(self, records: dict[str, Record] | None = None) -> None:
        super().__init__(records)
        self.lose_replies = 0
        self.cut_frames = 0
        self.ending: Ending | None = None
        self.backwards = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.streams = 0
        self.frames = 0
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
        said = details(ending.code, ending.reason, "ended") if ending.reason else ()
        await context.abort(ending.code, "ended", said)

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
