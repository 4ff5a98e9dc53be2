"""All errors of the client, as one tree. No gRPC exception escapes.

    CellkeeperError
      + InvalidArgument        a shape, dtype, id or value is not accepted; names what came and what was expected
      + AccessDenied           the server does not know, or does not trust, the caller
      + SessionExists          the target of a fork already exists
      + HistoryError           the session is not at the position where this client left it
      |   + SessionNotFound    expired, deleted or never opened; the client never recreates it silently
      |   + GenerationChanged  the session has another generation (reset, set-state, or expired and reopened)
      |   + HistoryChanged     the generation is the same, but other inputs were applied
      |   + HistoryLost        the server lost more steps than this client kept
      |   + StepConflict       another writer's inputs were applied at that step
      |   + StepGap            the step followed one that failed, and was not applied
      |   + StepCompacted      the step is too old for the server to compute again
      + ModelError
      |   + ModelChanged       the session belongs to a model version that is not served
      |   + NumericsChanged    the session was computed by an engine that rounds differently
      + ResourceExhausted      a limit was exceeded
      |   + QueueFull          the server is busy; retried until the deadline
      |   + AckBehind          the server's log is full of steps whose replies this client has not acknowledged
      |   + QuotaExceeded      the tenant's quota; retried until the deadline if the server says that waiting helps
      |   + ReplyTooLarge      ask for fewer time steps or outputs
      + RecordDamaged          the stored record of the session is corrupt; delete it, or restore the store
      + OutcomeUnknown         a step without a position may have been applied
      + CommitConflict         another client wrote to the session meanwhile; retried until the deadline
      + Unavailable            no server answers, or its store does not; retried until the deadline
      + DeadlineExceeded       the deadline passed; the cause is the last error before it
      + ServerError            the server failed in a way that it does not explain, or its reply breaks the contract
      + GroupError             some members of a group failed; says which, and why
      + Closed                 the client or the session was closed
      + ForkedProcess          this process was forked from one that uses a client, and cannot use one itself
      + WrongEventLoop         an AsyncClient was used in an event loop other than its own
      + WrongThread            a blocking call was made in the thread of its own client

A step that raises an error may already have been sent. If it was, and no reply says whether the server applied it, the
error has a `late_step`. The session settles that step before it sends the next one: it sends the step again at the same
position, which takes effect once. So it counts, unless the server rejects it for good. Do not step the same sample
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

    reason: the wire's name for the error ("STEP_GAP"), also where the client itself found it; "LOST" if no answer came;
    empty if it has none. field: the request field at fault, or empty. position: the session's position at the server,
    if known. retry_delay_ms: the delay that the server advises; 0: none. late_step: what is known of a step that was
    sent and ended with this error; None: the step does not count.
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
    """A shape, dtype, id or value is not accepted, or the result would not be finite. Nothing was applied."""


class AccessDenied(CellkeeperError):
    """The token or certificate is missing, unknown or expired, or lacks the right for the call."""


class SessionExists(CellkeeperError):
    """The target of a fork already exists."""


class HistoryError(CellkeeperError):
    """The session is not at the position where this client left it. The root of the next seven errors."""


class SessionNotFound(HistoryError):
    """The session expired, was deleted, or was never opened. The client never recreates it on its own."""


class GenerationChanged(HistoryError):
    """The session was reset, set to another state, carried over, or expired and opened again."""


class HistoryChanged(HistoryError):
    """The generation is the same, but other inputs were applied: the session has another writer."""


class HistoryLost(HistoryError):
    """The server lost more steps than this client keeps for a replay."""


class StepConflict(HistoryError):
    """Another writer's inputs were applied at that step."""


class StepGap(HistoryError):
    """The preceding step failed, with the error in `__cause__`; this step was not applied."""


class StepCompacted(HistoryError):
    """The step is older than the session's checkpoint, so its outputs cannot be computed again."""


class ModelError(CellkeeperError):
    """The session does not match the served versions of its model. The root of the next two errors."""


class ModelChanged(ModelError):
    """The session belongs to a model version that is not served."""


class NumericsChanged(ModelError):
    """The session was computed by an engine that rounds differently."""


class ResourceExhausted(CellkeeperError):
    """A limit was exceeded. The root of the next four errors."""


class QueueFull(ResourceExhausted):
    """The server is busy; the client retried until the deadline. field: "session" if only this session is."""


class QuotaExceeded(ResourceExhausted):
    """The tenant's quota is used up; the client retried if the server said that waiting helps."""


class AckBehind(ResourceExhausted):
    """The session's log at the server is full of steps whose replies are not acknowledged.

    The client waits for the replies in flight and sends the step again, so this is at most the `__cause__` of another
    error.
    """


class ReplyTooLarge(ResourceExhausted):
    """The outputs do not fit into a message. Nothing was applied; ask for fewer time steps or outputs."""


class RecordDamaged(CellkeeperError):
    """The stored record of the session is corrupt. Restore the store, or delete the session."""


class OutcomeUnknown(CellkeeperError):
    """The store did not answer the commit of a step without a position, so the step may have been applied.

    This client sends no such steps and never raises this.
    """


class CommitConflict(CellkeeperError):
    """Other clients wrote to the session twice while a request was being computed.

    The client retries until the deadline, so this is the `__cause__` of a `DeadlineExceeded`.
    """


class Unavailable(CellkeeperError):
    """No server answers, or its store does not; the client retried until the deadline."""


class DeadlineExceeded(CellkeeperError):
    """The deadline passed. `__cause__` is the last error before it."""


class ServerError(CellkeeperError):
    """The server failed and does not tell clients why (its log does), or its reply breaks the contract.

    A reply without an output that was requested is such a one. field: "outputs" or "state" then.
    """


class GroupError(CellkeeperError):
    """Some members of a group failed; the call succeeded for the others.

    errors: by id, each failed member's error, the same that its own session would have raised. ids: the members that
    succeeded, in the order of the call's rows. outputs: by name, the outputs of these members, one row per id; empty if
    the call returns none. reply: the GroupReply of what succeeded, if there is one. group: if opening a group raised
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets it be copied, and pickled: another process gets it without `group`, whose client stays here."""
        return _unpickled, (type(self), self.message), {**vars(self), "group": None}

    def __copy__(self) -> GroupError:
        return _unpickled(type(self), self.message, vars(self))


def _unpickled(kind: type[GroupError], message: str, state: Mapping[str, Any] | None = None) -> GroupError:
    """Makes the error without its constructor, which composes the message."""
    made = kind.__new__(kind, message)
    vars(made).update(state or {})
    return made


class Closed(CellkeeperError):
    """The client, the session or the group was closed."""


class ForkedProcess(CellkeeperError):
    """This process was forked from one that uses a client, and cannot use one itself."""


class WrongEventLoop(CellkeeperError):
    """An AsyncClient was used in an event loop other than its own. Nothing was sent."""


class WrongThread(CellkeeperError):
    """A blocking call was made in the thread of its own client, where it would wait for itself. Nothing was sent."""


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
    """Returns the error for a reason that the client itself found; ServerError if the reason is unknown."""
    return BY_REASON.get(reason, ServerError)(message, reason=reason, position=position)
