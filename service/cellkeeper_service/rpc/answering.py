"""What all unary calls have in common.

Each authenticates its caller, reads its message, and turns the outcome into a reply or a status.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar

from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.errors import Reason, Rejection, internal_error

from . import model_changed
from .authenticator import Authenticator
from .call_context import EOF, CallContext
from .call_log import abort
from .caller import Caller
from .catalog import Catalog
from .charges import Charge
from .message_stream import MessageStream
from .model_changed import Unfit
from .open_streams import OpenStreams
from .unread import Unread
from .waiting import deadline, settle

log = logging.getLogger(__name__)
Message = TypeVar("Message")
Unary = Callable[[Any, Any, "Call"], Awaitable[Message]]
Handler = Callable[[Any, CallContext], Awaitable[Message]]


@dataclass(eq=False)
class Answering:
    """A servicer, with what its methods need."""

    authenticator: Authenticator
    core: CoreLoop
    meter: Meter
    unread: Unread
    streams: OpenStreams

    @property
    def parts(self) -> tuple[Authenticator, CoreLoop, Meter, Unread, OpenStreams]:
        """What it was made of, for another servicer of the same core."""
        return self.authenticator, self.core, self.meter, self.unread, self.streams

    def stream(
        self, rpc: str, context: CallContext, kind: Callable[[Caller, CoreLoop, Meter, float], MessageStream[Any, Any]]
    ) -> AsyncGenerator[list[Any], None]:
        """Serves a call as a stream of this kind: see OpenStreams.serve."""
        return self.streams.serve(rpc, context, lambda caller, latest: kind(caller, self.core, self.meter, latest))

    async def reasons(self, refused: Rejection, model: str, sessions: Sequence[str], call: Call) -> list[Rejection]:
        """Returns the reason for the refusal, one for each session: see model_changed.ask."""
        found: asyncio.Future[list[Rejection]] = asyncio.get_running_loop().create_future()
        model_changed.ask(refused, self.core, call.catalog, model, sessions, call.deadline, partial(settle, found))
        return await found


@dataclass(frozen=True, slots=True)
class Call:
    """A unary call whose caller was admitted. deadline: seconds of the monotonic clock. charge: see Caller.charge."""

    caller: Caller
    deadline: float
    charge: Charge

    @property
    def catalog(self) -> Catalog:
        return self.caller.catalog


class Decided(Rejection):
    """A rejection that the core decided and counted already, rather than one found in the request itself."""

    def __init__(self, why: Rejection) -> None:
        super().__init__(
            why.reason, why.message, field=why.field, position=why.position, retry_delay_ms=why.retry_delay_ms
        )


def answering(method: Unary[Message], *, admits: bool = False) -> Handler[Message]:
    """Wraps an RPC method: authenticates the caller, reads the message, and calls the method.

    Turns a Rejection, raised or returned, into the call's status; hides any other error.

    admits: read the message only if admission control has room for the call. Under overload most calls are refused, and
    one whose message is never read costs least.
    """

    @wraps(method)
    async def answer(self: Answering, context: CallContext) -> Message:
        came = time.monotonic()
        try:
            caller = self.authenticator.enter(method.__name__, context)
            until = deadline(context, caller.catalog.limits.default_timeout_ms)
            if admits and (full := self.core.admit(until)) is not None:
                raise Decided(full)
            caller.allowance.take(1, 0)  # at once, because the message may take a while to arrive
            try:
                request = await self.unread.read(context)
                if request is EOF:
                    raise asyncio.CancelledError("the caller left before its message arrived")
                self.authenticator.check(caller)  # again: the message may have taken a while
                charge = caller.charge(request, entered=1)
                call = Call(caller, until, charge)
                try:
                    if isinstance(request, Unfit):
                        raise (await self.reasons(request.why, request.model, [request.session], call))[0]
                    reply = await method(self, request, call)
                finally:
                    caller.release(charge)
            finally:
                caller.allowance.give_back(1)
            if admits:
                self.core.answered(came)
            return reply
        except Rejection as rejection:
            why = rejection.with_traceback(None)  # without the traceback, whose frame would refer to it in a circle
        except StoreError as error:
            why = Rejection(Reason.STORE_UNAVAILABLE, str(error), retry_delay_ms=200)
        except Exception:
            log.exception("%s failed", method.__name__)
            why = internal_error()
        if not isinstance(why, Decided):
            self.meter.rejected(why.reason.value)
        return await abort(context, why, method.__name__)

    return answer


def admitted(method: Unary[Message]) -> Handler[Message]:
    """Like `answering`, for calls with steps: they go through admission control."""
    return answering(method, admits=True)


def checked(result: Any) -> Any:
    """Returns the result. Raises Decided if it is a Rejection."""
    if isinstance(result, Rejection):
        raise Decided(result)
    return result
