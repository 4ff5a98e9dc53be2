"""Cursors of the stores that list sessions in order: the id to go on after, in hex; "x" in front of one that is not
UTF-8, as a damaged file may have it."""

from __future__ import annotations


def session_cursor(session: bytes) -> str:
    """The cursor that goes on after `session`."""
    try:
        session.decode()
    except UnicodeDecodeError:
        return "x" + session.hex()
    return session.hex()


def session_after(cursor: str) -> bytes | None:
    """The session id that `cursor` goes on after; None at the start. ValueError for anything else."""
    if not cursor:
        return None
    try:
        session = bytes.fromhex(cursor.removeprefix("x"))
    except ValueError:
        session = b""
    if not session or session_cursor(session) != cursor:
        raise ValueError(f"cursor: got {cursor!r}, expected one from an earlier page, or an empty one")
    return session
