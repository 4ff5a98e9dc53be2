"""Ends refused and failed calls, and logs them: which, by whom, why. Never their content or a session's id."""

from __future__ import annotations

import logging
import re
from typing import Any, NoReturn

from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.logs import PerSecond

from .call_context import CallContext
from .status import CODES

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[0-9A-Za-z._:/+=@-]{1,128}")  # nothing that could pass for another field or line

WARNINGS = frozenset({Reason.STORE_UNAVAILABLE, Reason.QUEUE_FULL, Reason.OUTCOME_UNKNOWN, Reason.INTERNAL_ERROR})
"""Reasons that concern the operator, logged as warnings; all others concern the caller and are logged as info."""

log = logging.getLogger(__name__)
_rate = PerSecond(1)


async def abort(context: CallContext, why: Rejection, method: str = "") -> NoReturn:
    """Ends the call with the rejection's status, and logs it. method: the RPC's name for the log."""
    note_refused(context, method, why)
    await context.refuse(why)


def note_refused(context: CallContext, method: str, why: Rejection) -> None:
    """Logs a refusal, at most once a second for each reason.

    The line counts those left out before it. A refusal that is not logged costs only the lookup.
    """
    reason, code = why.reason, CODES[why.reason].name
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
    """Returns the caller's id for its request, from x-request-id; None if it is absent or not printable."""
    for name, value in context.invocation_metadata():
        if name == REQUEST_ID:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None
