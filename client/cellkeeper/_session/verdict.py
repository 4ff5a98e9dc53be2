"""What the outcome of a chunk means for its history."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from .chunk import Chunk

# Retried with the same bytes at the same position. LOST comes from the transport: no answer came.
LOST = "LOST"
RETRIED = frozenset(
    {
        LOST,
        "STORE_UNAVAILABLE",
        "DRAINING",
        "QUEUE_FULL",
        "COMMIT_CONFLICT",
        "CALLER_GONE",
        "DEADLINE_PASSED",
    }
)

# Not applied in this attempt. After any other retryable reason, it may have been.
NOT_APPLIED = frozenset({"QUEUE_FULL", "ACK_BEHIND"})

# The record does not hold the chunk at its position, and never will. After any other refusal, an earlier unanswered
# attempt may have applied the chunk.
FINAL = frozenset(
    {
        "STEP_CONFLICT",
        "HISTORY_CHANGED",
        "INVALID_FIELD",
        "NON_FINITE_INPUT",
        "NON_FINITE_RESULT",
        "REPLY_TOO_LARGE",
    }
)


class Action(Enum):
    DELIVER = "deliver"  # the reply goes to the chunk's caller
    COUNTED = "counted"  # answered; its reply was delivered before
    RESEND = "resend"  # the same bytes at the same position, after a pause
    REPLAY = "replay"  # the server lost steps; they are sent again from its position
    FAIL = "fail"  # the chunks in `failed` are refused for good
    IGNORE = "ignore"  # its caller was already told


class Verdict(NamedTuple):
    """What an outcome means.

    reason: on FAIL, the wire's reason, or HISTORY_LOST. failed: the chunks whose callers must be told, oldest first;
    those that are not dropped may have been applied, and are late from now on. replayed_steps: on REPLAY, how many
    answered time steps are sent again.
    """

    action: Action
    reason: str = ""
    failed: tuple[Chunk, ...] = ()
    replayed_steps: int = 0


DELIVER = Verdict(Action.DELIVER)
COUNTED = Verdict(Action.COUNTED)
RESEND = Verdict(Action.RESEND)
IGNORE = Verdict(Action.IGNORE)
