"""A StepStream held open: a test decides when frames are sent and replies read."""

from __future__ import annotations

import queue
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .calls import Api, Chunk, Result, frame_message, from_frames


class Talk:
    """A context manager. Sends frames of one item each, distinguished by their frame_id."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._frames: queue.SimpleQueue[pb.StepFrame | None] = queue.SimpleQueue()
        self._call: Any = api.stub.StepStream(iter(self._frames.get, None), timeout=60)
        self._sent = 0
        self.asked_to_end: list[pb.Error] = []  # how often, and why, the server asked for the end

    def send(self, chunk: Chunk, *, timeout_ms: int = 0) -> int:
        """Sends a chunk. Returns the frame's id."""
        frame = frame_message(self._api.model, [chunk], timeout_ms=timeout_ms)
        frame.frame_id = self._sent = self._sent + 1
        self._frames.put(frame)
        return self._sent

    def receive(self) -> tuple[int, Result]:
        """Returns the next reply: its frame's id and its item's result.

        Raises grpc.RpcError if the stream was lost, StopIteration if the server ended it.
        """
        reply = next(self._call)
        while not reply.frame_id:  # the server asks for the end
            self.asked_to_end.append(reply.frame_error)
            self._frames.put(None)
            reply = next(self._call)
        return reply.frame_id, from_frames(1, [reply])[0]

    def when_ended(self, tell: Callable[[Any], None]) -> None:
        """tell: gets the call, with its code and details."""
        self._call.add_done_callback(tell)

    def receive_all(self, count: int) -> dict[int, Result]:
        return dict(self.receive() for _ in range(count))

    def __enter__(self) -> Talk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.put(None)
        self._call.cancel()
