"""StepStream: frames in, partial replies out as they become ready."""

from __future__ import annotations

import logging

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Reason, Rejection, internal_error

from .caller import Caller
from .frame_replies import FrameReplies, refused_items
from .frames import read_frame
from .message_stream import MessageStream
from .status import to_error

log = logging.getLogger(__name__)


class Stream(MessageStream[pb.StepFrame, pb.StepFrameReply]):
    """One open StepStream."""

    def __init__(self, caller: Caller, core: CoreLoop, meter: Meter, latest: float) -> None:
        """See MessageStream."""
        super().__init__(caller, core, meter, latest)
        self._open: set[FrameReplies] = set()

    def announce_end(self) -> None:
        """Asks the client to send no more frames.

        Those already sent are answered, and the stream ends when the client half-closes.
        """
        why = Rejection(Reason.DRAINING, "the server is shutting down; send no more on this stream", retry_delay_ms=100)
        self._reply(pb.StepFrameReply(frame_error=to_error(why)), is_last=False)

    def _abandon(self) -> None:
        for replies in self._open:
            replies.abandon()

    def _submit(self, message: pb.StepFrame) -> None:
        self._meter.frame("in", len(message.sessions))
        try:
            frame = read_frame(message, self._caller.catalog, latest=self._latest, needs_positions=not message.peek)
        except Rejection as rejection:
            self._refuse(message, rejection)
            return
        except Exception:
            log.exception("a frame could not be read")
            error = to_error(internal_error())
            self._reply(pb.StepFrameReply(frame_id=message.frame_id, frame_error=error, last=True))
            return

        try:
            charge = self._caller.charge(message)
        except Rejection as over:
            self._meter.frame("out", len(frame))
            self._reply(refused_items(message.frame_id, [over] * len(frame), self._meter))
            return

        def send(reply: pb.StepFrameReply) -> None:
            self._meter.frame("out", len(reply.items) // 4 + len(reply.errors))
            self._reply(reply, reply.last)
            if reply.last:
                self._caller.release(charge)
                self._open.discard(replies)

        replies = FrameReplies(message.frame_id, frame, send, whole=False)
        self._open.add(replies)
        replies.submit(self._core, self._meter, charge.refused)

    def _refuse(self, message: pb.StepFrame, refused: Rejection) -> None:
        def done(reasons: list[Rejection]) -> None:
            if set(reasons) <= {refused}:
                self._meter.rejected(refused.reason.value)
                reply = pb.StepFrameReply(frame_id=message.frame_id, frame_error=to_error(refused), last=True)
            else:
                reply = refused_items(message.frame_id, reasons, self._meter)
            self._reply(reply)

        self._ask(refused, message, message.model, message.sessions, done)
