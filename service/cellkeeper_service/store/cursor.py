"""Cursors of listings. Stores that list sessions in order use the last id of the page in hex, with "x" in front if the
id is not UTF-8, as may happen in a damaged file."""

from __future__ import annotations


def bad_cursor(cursor: str) -> ValueError:
    """Returns the error for a cursor that no store of this kind has returned."""
    return ValueError(f"cursor: got {cursor!r}, expected one from an earlier page, or an empty one")


def session_cursor(session: bytes) -> str:
    """Returns the cursor that continues after `session`."""
    try:
        session.decode()
    except UnicodeDecodeError:
        return "x" + session.hex()
    return session.hex()


def session_after(cursor: str) -> bytes:
    """Returns the session id after which `cursor` continues; b"" at the start. Raises ValueError for a bad cursor."""
    if not cursor:
        return b""
    try:
        session = bytes.fromhex(cursor.removeprefix("x"))
    except ValueError:
        session = b""
    if not session or session_cursor(session) != cursor:
        raise bad_cursor(cursor)
    return session
