"""ModelStreamInfer: requests in, one reply to each as it becomes ready. An error ends one request, not the stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.requests import Step
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Reason, Rejection, internal_error
from cellkeeper_service.rpc.caller import Caller
from cellkeeper_service.rpc.charges import Charge
from cellkeeper_service.rpc.message_stream import MessageStream
from cellkeeper_service.rpc.status import shortened

from .inference import Inference, Service, is_request_id, read_infer, write_streamed
from .parameters import session_asked
from .refusals import in_tritons_words
from .statistics import Statistics

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Taken:
    """A request whose step was submitted. came: in seconds of the monotonic clock."""

    asked: Inference
    charge: Charge
    came: float


class InferStream(MessageStream[pb.ModelInferRequest, pb.ModelStreamInferResponse]):
    """One open ModelStreamInfer."""

    def __init__(
        self,
        caller: Caller,
        core: CoreLoop,
        meter: Meter,
        latest: float,
        service: Service,
        statistics: Statistics,
    ) -> None:
        """See MessageStream."""
        super().__init__(caller, core, meter, latest)
        self._service = service
        self._statistics = statistics
        self._open: dict[Step, _Taken] = {}

    def announce_end(self) -> None:
        """Ends the stream once everything read is answered. The protocol has no message to announce it."""
        self.finish()

    def finish(self, why: Rejection | None = None) -> None:
        """See MessageStream. Without a reason, ends with DRAINING: an OK status would tell the client nothing."""
        text = "the server is shutting down; retry on another replica, or here after the restart"
        super().finish(why or Rejection(Reason.DRAINING, text, retry_delay_ms=100))

    def _abandon(self) -> None:
        for step in self._open:
            step.gone = True

    def _submit(self, message: pb.ModelInferRequest) -> None:
        came = time.monotonic()
        try:
            asked = read_infer(message, self._caller.catalog, self._service)
        except Rejection as refused:
            self._refuse(message, refused, came)
            return
        except Exception:
            log.exception("a request of a stream could not be read")
            self._fail(message.model_name, message.id, internal_error(), came)
            return
        try:
            charge = self._caller.charge(message)
        except Rejection as over:
            self._meter.rejected(over.reason.value)
            self._fail(message.model_name, message.id, over, came)
            return
        until = asked.until(came, self._until())
        full = self._core.admit(until)  # every message is a call of its own: the loop waits a moment for more
        if full is not None:
            self._caller.release(charge)
            self._fail(message.model_name, message.id, full, came)
            return

        step = asked.step(until, self._done)
        self._open[step] = _Taken(asked, charge, came)
        self._core.submit(step)

    def _done(self, steps: Sequence[Step]) -> None:
        for step in steps:
            taken = self._open.pop(step)
            self._caller.release(taken.charge)
            try:
                self._answer(step, taken)
            except Exception:
                log.exception("the reply to a request of a stream could not be built")
                self._fail(taken.asked.key.model, taken.asked.identifier, internal_error(), taken.came)

    def _answer(self, step: Step, taken: _Taken) -> None:
        asked, reply = taken.asked, step.reply()
        model = asked.key.model
        if isinstance(reply, Rejection):
            why = in_tritons_words(reply, asked.parameters.sequence, model)
            self._fail(model, asked.identifier, why, taken.came)
            return
        response = write_streamed(asked, reply)
        self._statistics.succeeded(model, time.monotonic() - taken.came, reply)
        self._reply(response)

    def _refuse(self, message: pb.ModelInferRequest, refused: Rejection, came: float) -> None:
        """Refuses with `refused`, or with a better reason from the session's record (see model_changed.ask)."""

        def done(reasons: list[Rejection]) -> None:
            why = reasons[0] if reasons else refused
            self._meter.rejected(why.reason.value)
            self._fail(message.model_name, message.id, why, came)

        self._ask(refused, message, message.model_name, session_asked(message), done)

    def _fail(self, model: str, identifier: str, why: Rejection, came: float) -> None:
        self._statistics.failed(model, time.monotonic() - came)
        response = pb.ModelInferResponse(id=identifier if is_request_id(identifier) else "")
        self._reply(pb.ModelStreamInferResponse(error_message=shortened(why.message), infer_response=response))
