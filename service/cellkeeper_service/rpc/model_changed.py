"""Finds out whether a request was refused only because its session belongs to another version of the model.

A request that does not fit the served model may fit a version that is no longer served. It is then refused with
MODEL_CHANGED, as a request that fits both versions would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cellkeeper_service.core.decision_table import model_changed
from cellkeeper_service.core.loop import CoreLoop
from cellkeeper_service.core.requests import GetSession, SessionReply
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason, Rejection

from . import fields
from .catalog import Catalog

BY_MODEL = frozenset({Reason.INVALID_FIELD, Reason.NON_FINITE_INPUT, Reason.REPLY_TOO_LARGE})
"""Reasons that depend on the version: shapes, token ids, NaN, outputs and their size."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Takes the place of a message about one session that could not be made, for the reason `why`."""

    model: str
    session: str
    why: Rejection


def ask(
    refused: Rejection,
    core: CoreLoop,
    catalog: Catalog,
    model: str,
    sessions: Sequence[str],
    until: float,
    done: Callable[[list[Rejection]], None],
) -> None:
    """Reads the sessions' records, and calls `done` on the loop's thread with one reason for each session.

    The reason is MODEL_CHANGED if the session belongs to a version that is not served, `refused` otherwise. until:
    monotonic seconds.
    """
    found = [refused] * len(sessions)
    depends = refused.reason in BY_MODEL and len(sessions) <= catalog.limits.max_frame_items
    asked = {item: session for item, session in enumerate(sessions) if fields.is_session_id(session)} if depends else {}
    try:
        name, models = catalog.find(model)
    except Rejection:
        asked = {}
    if not asked:
        done(found)
        return
    left = len(asked)

    def answered(item: int, requests: Sequence[GetSession]) -> None:
        nonlocal left
        result = requests[0].result
        if isinstance(result, SessionReply):
            found[item] = model_changed(result.header, models) or refused
        left -= 1
        if left == 0:
            done(found)

    for item, session in asked.items():
        core.submit(GetSession(SessionKey(catalog.tenant, name, session), until, partial(answered, item)))
