"""docs/reference/reasons.md: why a request is refused, with the code, the cause and the remedy."""

from __future__ import annotations

from cellkeeper.errors import BY_REASON
from cellkeeper_service.errors import Reason
from cellkeeper_service.rpc.status import CODES

from .markdown import code, table

INTRODUCTION = """# Reasons of refusals

Every refused request, and every refused item of a frame, has one of these reasons. A whole call fails with the gRPC
status of the code and a `google.rpc.ErrorInfo` whose `reason` is the name below; an item has an `Error` message
([contract](contract.md)). Nothing of a refused request was applied, except where the cause says that this is not known.
The client raises the exception of the last column; [errors](../errors.md) says what to do in its code.
"""

CAUSES: dict[Reason, tuple[str, str]] = {
    Reason.INVALID_FIELD: (
        "A field cannot be taken. The message names it, what came and what was expected.",
        "Correct the field that `field` names.",
    ),
    Reason.NON_FINITE_INPUT: (
        "The input has NaN or infinity, which the model does not accept.",
        "Send finite values, or import the model with a policy for missing values.",
    ),
    Reason.NON_FINITE_RESULT: (
        "The inputs are finite, but an output or the state would not be.",
        "Look at the size of the inputs; the session stays as it was.",
    ),
    Reason.DUPLICATE_SESSION: ("The frame has two items of one session.", "Send them in two frames, or as one chunk."),
    Reason.SESSION_NOT_FOUND: (
        "The session expired, was deleted, or was never opened.",
        "Open it; it starts at step 0.",
    ),
    Reason.MODEL_NOT_FOUND: (
        "KServe's protocol names a model that is not served.",
        "Correct the name, or serve the model.",
    ),
    Reason.SESSION_EXISTS: ("The target of a fork exists.", "Choose another id, or delete the target first."),
    Reason.GENERATION_CHANGED: (
        "The session was reset, set to another state, carried over, or it expired and was opened again.",
        "Open it anew, if another generation is what you want to continue.",
    ),
    Reason.MODEL_CHANGED: (
        "The session belongs to a model version that is not served.",
        "Serve that version, carry the session over, or reset it.",
    ),
    Reason.NUMERICS_CHANGED: (
        "The session was computed by an engine that rounds differently.",
        "Serve it with that engine, reset it, or start the server with `--accept-other-numerics`.",
    ),
    Reason.STEP_GAP: (
        "The position is after the record's last step: the store lost steps, or earlier steps were not applied.",
        "Send the missing steps again, from the position in the error. The client does so from its replay buffer.",
    ),
    Reason.OUTCOME_UNKNOWN: (
        "The store stopped answering while it committed a step without position. It may have been applied.",
        "Read the session's position before the next step. Steps with positions never get this.",
    ),
    Reason.HISTORY_CHANGED: (
        "The generation and the step are the record's, but other inputs led there.",
        "Find the other writer of the session.",
    ),
    Reason.STEP_CONFLICT: (
        "Other inputs were applied at this step.",
        "Find the other writer, or open the session anew to continue after its steps.",
    ),
    Reason.COMMIT_CONFLICT: (
        "Others wrote to the session, twice, while this request was computed.",
        "Send it again. Let one writer step a session.",
    ),
    Reason.STEP_COMPACTED: (
        "The step is older than the session's checkpoint, so its outputs cannot be computed again.",
        "A client that holds the reply counts the step as done; otherwise open the session anew.",
    ),
    Reason.QUEUE_FULL: (
        "The server's queue is full, or the request would miss its deadline. With the field `session`: the queue of "
        "this session.",
        "Wait `retry_delay_ms`, then send it again; send less, or add replicas.",
    ),
    Reason.REPLY_TOO_LARGE: (
        "No message can carry the outputs, or the state. Nothing was applied.",
        "Ask for fewer time steps or outputs in one call, or raise `--max-message-bytes`.",
    ),
    Reason.ACK_BEHIND: (
        "The session's input log (`--max-log-steps`, `--max-log-bytes`) is full of steps that the client has not "
        "acknowledged.",
        "Read the replies, send a higher `acked`, and keep fewer steps unanswered.",
    ),
    Reason.QUOTA_EXCEEDED: (
        "The tenant's quota is used up.",
        "Wait `retry_delay_ms` where it is set; otherwise delete sessions, or raise the quota.",
    ),
    Reason.STORE_UNAVAILABLE: (
        "The store does not answer. A request with a position may have been applied.",
        "Send it again with the same position. The runbook of store errors says what to look at.",
    ),
    Reason.DRAINING: ("The server is shutting down.", "Send it to another replica."),
    Reason.DEADLINE_PASSED: (
        "The deadline passed before the request was computed.",
        "Send it again with the same position and a later deadline.",
    ),
    Reason.CALLER_GONE: ("The caller cancelled the request before it was computed.", "Nothing; nobody waits for it."),
    Reason.UNAUTHENTICATED: (
        "There is no token and no client certificate, or it is unknown or has expired.",
        "Send a token that the server's file lists.",
    ),
    Reason.PERMISSION_DENIED: (
        "The caller is known and lacks the right for this call.",
        "Use a token with that right.",
    ),
    Reason.INTERNAL_ERROR: ("The server failed.", "Read the server's log, which has the cause, and report it."),
    Reason.DATA_LOSS: (
        "What the store holds of the session cannot be right. Another try finds the same.",
        "Restore the store, or delete the session; reset it where the error gives a position.",
    ),
}


def reasons_page() -> str:
    """The page as Markdown. Raises RuntimeError for a reason without a row."""
    missing = [reason.name for reason in Reason if reason not in CAUSES]
    if missing:
        raise RuntimeError(f"no cause and remedy for {', '.join(missing)}; add them to CAUSES in {__name__}")
    head = ("reason", "gRPC code", "cause", "remedy", "client raises")
    return f"{INTRODUCTION}\n{table(head, (_row(reason) for reason in Reason))}"


def _row(reason: Reason) -> tuple[str, ...]:
    raised = BY_REASON.get(reason.name)
    return (
        code(reason.name),
        code(CODES[reason].name),
        *CAUSES[reason],
        code(raised.__name__) if raised is not None else "",
    )
