"""Calls that are refused or fail, in the log: which, whose, why. Never what was in them, nor a session's id."""

from __future__ import annotations

import logging
import re
from typing import Any

from cellkeeper_service.errors import Reason
from cellkeeper_service.logs import PerSecond

from .call_context import CallContext

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[0-9A-Za-z._:/+=@-]{1,128}")  # nothing that could look like another field or line

WARNINGS = frozenset({Reason.STORE_UNAVAILABLE, Reason.QUEUE_FULL, Reason.OUTCOME_UNKNOWN, Reason.INTERNAL_ERROR})
"""What is the operator's to look at; all else is its caller's, and information."""

log = logging.getLogger(__name__)
_rate = PerSecond(1)


def note_refused(context: CallContext, method: str, reason: Reason, code: str) -> None:
    """At most one line a second for each reason, which says how many were left out before it. What is not written
    costs no more than looking that up."""
    level = logging.WARNING if reason in WARNINGS else logging.INFO
    if not log.isEnabledFor(level):
        return
    left_out = _rate.admit(reason)
    if left_out is None:
        return
    fields: dict[str, Any] = {"method": method, "reason": reason.name, "code": code, "peer": context.peer()}
    if (request_id := request_id_of(context)) is not None:
        fields["request_id"] = request_id
    if left_out:
        fields["left_out"] = left_out
    log.log(level, "refused", extra={"fields": fields})


def request_id_of(context: CallContext) -> str | None:
    """What the caller calls its request, in the metadata x-request-id; None where there is none that can be printed."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None
