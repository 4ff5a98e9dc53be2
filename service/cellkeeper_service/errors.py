"""Errors of the service: why a request is refused, and why the server does not start.

    Reason       the name of a refusal on the wire and in the metrics
    Rejection    a reason with its message, the field at fault and the record's position
    StartError   the server cannot start; one line that says what to do

Only rpc/status.py maps reasons to gRPC codes.
"""

from __future__ import annotations

from enum import Enum

from .domain.position import Position


class Reason(Enum):
    """The reasons for a refusal, named as in the wire's enum `Reason`."""

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
    """A request, or one item of a frame, is refused, and nothing of it was applied.

    There are two exceptions: with OUTCOME_UNKNOWN, and with STORE_UNAVAILABLE for a positioned request, it may have
    been applied.
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
    """Returns what the caller sees when an exception is raised; the cause goes to the log."""
    return Rejection(Reason.INTERNAL_ERROR, "internal error; the server's log has the cause")


def device_failed(why: Exception) -> Rejection:
    """Returns what callers see when a failed device ends the server: the same reason as for a shutdown."""
    text = f"{why}; the request was not applied, and this server is shutting down; retry on another replica"
    return Rejection(Reason.DRAINING, text, retry_delay_ms=100)


def invalid(field: str, came: object, expected: str) -> Rejection:
    """Returns the rejection of a field's value; the message names the field, what came and what was expected."""
    return Rejection(Reason.INVALID_FIELD, f"{field}: got {came}, expected {expected}", field=field)


class StartError(Exception):
    """The server cannot start. The message is one line that says what to do."""
