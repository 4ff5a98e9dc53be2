"""Why a request is refused: one reason each, with what the caller needs to go on.

    Reason       its name on the wire and in the metrics
    Rejection    a reason with its text, its field and the record's position
    StartError   the server does not start; one line that says what to do

The gRPC code of each reason is in rpc/status.py, and only there.
"""

from __future__ import annotations

from enum import Enum

from .domain.position import Position


class Reason(Enum):
    """The names are those of the wire's enum `Reason`."""

    INVALID_FIELD = "invalid_field"
    NON_FINITE_INPUT = "non_finite_input"
    NON_FINITE_RESULT = "non_finite_result"
    DUPLICATE_SESSION = "duplicate_session"
    SESSION_NOT_FOUND = "session_not_found"
    MODEL_NOT_FOUND = "model_not_found"
    SESSION_EXISTS = "session_exists"
    GENERATION_CHANGED = "generation_changed"
    MODEL_CHANGED = "model_changed"
    NUMERICS_CHANGED = "numerics_changed"
    STEP_GAP = "step_gap"
    OUTCOME_UNKNOWN = "outcome_unknown"
    HISTORY_CHANGED = "history_changed"
    STEP_CONFLICT = "step_conflict"
    COMMIT_CONFLICT = "commit_conflict"
    STEP_COMPACTED = "step_compacted"
    QUEUE_FULL = "queue_full"
    REPLY_TOO_LARGE = "reply_too_large"
    ACK_BEHIND = "ack_behind"
    QUOTA_EXCEEDED = "quota_exceeded"
    STORE_UNAVAILABLE = "store_unavailable"
    DRAINING = "draining"
    DEADLINE_PASSED = "deadline_passed"
    CALLER_GONE = "caller_gone"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    INTERNAL_ERROR = "internal_error"
    DATA_LOSS = "data_loss"


class Rejection(Exception):
    """One request, or one item of a frame, is refused; nothing of it was applied.

    (Only OUTCOME_UNKNOWN, and a positioned request's STORE_UNAVAILABLE, leave open whether it was.)
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        position: Position | None = None,
        retry_delay_ms: int = 0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.position = position
        self.retry_delay_ms = retry_delay_ms


def internal_error() -> Rejection:
    """What a caller is told of an exception; the cause goes to the log."""
    return Rejection(Reason.INTERNAL_ERROR, "internal error; the server's log has the cause")


def device_failed(why: Exception) -> Rejection:
    """What a caller is told when the server ends because its device failed: as if it were shutting down."""
    text = f"{why}; nothing of the request was applied, and this server ends; another replica goes on"
    return Rejection(Reason.DRAINING, text, retry_delay_ms=100)


def invalid(field: str, came: object, expected: str) -> Rejection:
    """A field that cannot be taken: names it, what came and what was expected."""
    return Rejection(Reason.INVALID_FIELD, f"{field}: got {came}, expected {expected}", field=field)


class StartError(Exception):
    """The server cannot start. The text is one line that says what to do."""
