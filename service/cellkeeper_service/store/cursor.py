"""Cursors of the stores that list sessions in order: the id to go on after, in hex."""

from __future__ import annotations


def session_cursor(session: str) -> str:
    """The cursor that goes on after `session`."""
    return session.encode().hex()


def session_after(cursor: str) -> str | None:
    """The session id that `cursor` goes on after; None at the start. ValueError for anything else."""
    if not cursor:
        return None
    try:
        session = bytes.fromhex(cursor).decode()
    except ValueError:
        session = ""
    if not session or session_cursor(session) != cursor:
        raise ValueError(f"cursor: got {cursor!r}, expected one from an earlier page, or an empty one")
    return session
