"""What can go wrong, as one tree. Nothing of grpc leaks through it.

    CellkeeperError
      + InvalidArgument        a shape, dtype, id or value cannot be taken; names what came and what was expected
      + AccessDenied           the server does not know, or does not trust, the caller
      + SessionExists          a fork's target is taken
      + HistoryError           the session is not at the position where this client left it
      |   + SessionNotFound    expired, deleted or never opened; it is never created again silently
      |   + GenerationChanged  another generation of the session is there (reset, set-state, or expired and reopened)
      |   + HistoryChanged     the same generation, but with other inputs
      |   + HistoryLost        the server lost steps, more of them than this client kept
      |   + StepConflict       others' inputs were applied at that step
      |   + StepGap            the step was built on one that failed, and was not applied
      |   + StepCompacted      the step is older than what the server can compute again
      + ModelError
      |   + ModelChanged       the session belongs to a model version that is not served
      |   + NumericsChanged    the session was computed by an engine that rounds differently
      + ResourceExhausted      a limit was passed
      |   + QueueFull          the server is busy; tried again until the deadline
      |   + AckBehind          the server's log is full of steps whose replies this client lacks
      |   + QuotaExceeded      the tenant's; tried again until the deadline where the server says that waiting helps
      |   + ReplyTooLarge      ask for fewer time steps or outputs
      + RecordDamaged          what the store holds of the session cannot be right; delete it, or restore the store
      + OutcomeUnknown         a step without position may have been applied
      + CommitConflict         others wrote to the session meanwhile; tried again until the deadline
      + Unavailable            no server answers, or its store does not; tried again until the deadline
      + DeadlineExceeded       time ran out; the cause is the last thing that went wrong
      + ServerError            the server failed in a way that it does not explain to clients
      + GroupError             some members of a group failed; says which, and why
      + Closed                 the client or the session was closed
      + ForkedProcess          this process was forked from one that uses a client, and cannot use one itself
      + WrongEventLoop         an AsyncClient was used in another event loop than the one it belongs to

A step that ends with an error may have been sent before. If it was, and no answer says whether the server applied it,
the error has a `late_step`. The session settles that step before it sends the next one, by sending it again at its own
position, which takes effect once; so it counts, unless the server refuses it for good. Do not step the same sample
again after such an error: `session.settle()` gives its outcome. A step whose error has no `late_step` does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .late_step import LateStep
from .position import Position

_TOLD_ERRORS = 3


class CellkeeperError(Exception):
    """The root of all errors of this package.

    reason: the wire's word for it ("STEP_GAP"), empty where there is none. field: the request's field at fault,
    or empty. position: the session's position at the server, where it is known. retry_delay_ms: the server's
    advice; 0: none. late_step: where a step that was sent ends with this error, what is known of that step; None: the
    step does not count.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        position: Position | None = None,
        retry_delay_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.position = position
        self.retry_delay_ms = retry_delay_ms
        self.late_step: LateStep | None = None


class InvalidArgument(CellkeeperError):
    """A shape, dtype, id or value cannot be taken, or the result would not be finite. Nothing was applied."""


class AccessDenied(CellkeeperError):
    """The token or certificate is missing, unknown or expired, or lacks the right for the call."""


class SessionExists(CellkeeperError):
    """The target of a fork exists."""


class HistoryError(CellkeeperError):
    """The session is not at the position where this client left it. The root of the next seven."""


class SessionNotFound(HistoryError):
    """The session expired, was deleted, or was never opened. The client never creates it again by itself."""


class GenerationChanged(HistoryError):
    """The session was reset, set to another state, carried over, or it expired and was opened again."""


class HistoryChanged(HistoryError):
    """The generation is the same, but other inputs were applied: the session has another writer."""


class HistoryLost(HistoryError):
    """The store lost more steps than this client keeps for a replay."""


class StepConflict(HistoryError):
    """Others' inputs were applied at that step."""


class StepGap(HistoryError):
    """The step before it failed, which is its `__cause__`; it was not applied."""


class StepCompacted(HistoryError):
    """The step is older than the session's checkpoint, so its outputs cannot be computed again."""


class ModelError(CellkeeperError):
    """The session and the served versions of its model do not fit. The root of the next two."""


class ModelChanged(ModelError):
    """The session belongs to a model version that is not served."""


class NumericsChanged(ModelError):
    """The session was computed by an engine that rounds differently."""


class ResourceExhausted(CellkeeperError):
    """A limit was passed. The root of the next four."""


class QueueFull(ResourceExhausted):
    """The server is busy; the client tried again until the deadline."""


class QuotaExceeded(ResourceExhausted):
    """The tenant's quota is used up; the client tried again where the server says that waiting helps."""


class AckBehind(ResourceExhausted):
    """The session's log at the server is full of steps whose replies are not acknowledged. The client waits for those
    that are on their way and sends the step again, so this is at most the `__cause__` of another error."""


class ReplyTooLarge(ResourceExhausted):
    """No message can carry the outputs. Nothing was applied; ask for fewer time steps or outputs."""


class RecordDamaged(CellkeeperError):
    """The stored record of the session cannot be right. Restore the store, or delete the session."""


class OutcomeUnknown(CellkeeperError):
    """The store did not answer the commit of a step without a position, which may have been applied. This client sends
    no such steps and never raises this."""


class CommitConflict(CellkeeperError):
    """Others wrote to the session twice while a request was computed. The client sends it again until the deadline, so
    this is the `__cause__` of a `DeadlineExceeded`."""


class Unavailable(CellkeeperError):
    """No server answers, or its store does not; the client tried again until the deadline."""


class DeadlineExceeded(CellkeeperError):
    """Time ran out. `__cause__` is the last thing that went wrong."""


class ServerError(CellkeeperError):
    """The server failed, and does not explain it to clients; its log does."""


class GroupError(CellkeeperError):
    """Some members of a group failed; the others did what they were asked to.

    errors: by id, each member's own error, which is what a session of its own would have raised. ids: the members that
    succeeded, in the order of the call's rows. outputs: by name, what these answered, one row an id; empty where the
    call returns none. reply: the GroupReply of what succeeded, where there is one. group: where opening one raised
    this, the group of the members that could be opened.
    """

    def __init__(
        self,
        what: str,
        errors: Mapping[str, CellkeeperError],
        ids: Sequence[str],
        *,
        outputs: Mapping[str, NDArray[Any]] | None = None,
        reply: Any = None,
        group: Any = None,
    ) -> None:
        told = [f"{name!r}: {error.message}" for name, error in list(errors.items())[:_TOLD_ERRORS]]
        more = len(errors) - len(told)
        last = [f"and {more} more (see `errors`)"] if more else []
        text = f"{what}: {len(errors)} of {len(errors) + len(ids)} members failed: " + "; ".join([*told, *last])
        super().__init__(text)
        self.errors = dict(errors)
        self.ids = tuple(ids)
        self.outputs = dict(outputs or {})
        self.reply = reply
        self.group = group


class Closed(CellkeeperError):
    """The client, the session or the group was closed."""


class ForkedProcess(CellkeeperError):
    """This process was forked from one that uses a client, and cannot use one itself."""


class WrongEventLoop(CellkeeperError):
    """An AsyncClient was used in another event loop than the one it belongs to. Nothing was sent."""


BY_REASON: dict[str, type[CellkeeperError]] = {
    "INVALID_FIELD": InvalidArgument,
    "NON_FINITE_INPUT": InvalidArgument,
    "NON_FINITE_RESULT": InvalidArgument,
    "DUPLICATE_SESSION": InvalidArgument,
    "SESSION_NOT_FOUND": SessionNotFound,
    "SESSION_EXISTS": SessionExists,
    "GENERATION_CHANGED": GenerationChanged,
    "MODEL_CHANGED": ModelChanged,
    "NUMERICS_CHANGED": NumericsChanged,
    "STEP_GAP": StepGap,
    "OUTCOME_UNKNOWN": OutcomeUnknown,
    "HISTORY_CHANGED": HistoryChanged,
    "HISTORY_LOST": HistoryLost,
    "STEP_CONFLICT": StepConflict,
    "COMMIT_CONFLICT": CommitConflict,
    "STEP_COMPACTED": StepCompacted,
    "QUEUE_FULL": QueueFull,
    "REPLY_TOO_LARGE": ReplyTooLarge,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "ACK_BEHIND": AckBehind,
    "STORE_UNAVAILABLE": Unavailable,
    "DRAINING": Unavailable,
    "LOST": Unavailable,
    "DEADLINE_PASSED": DeadlineExceeded,
    "CALLER_GONE": Unavailable,
    "INTERNAL_ERROR": ServerError,
    "DATA_LOSS": RecordDamaged,
}


def error_of_reason(reason: str, message: str, position: Position | None = None) -> CellkeeperError:
    """An error that the client itself found; ServerError where the reason is not known."""
    return BY_REASON.get(reason, ServerError)(message, reason=reason, position=position)
