"""Session ids of rows that are not UTF-8. No client can have sent them, so the file was damaged or edited.

Listings show them with their bad bytes escaped ("pump-\\xff"), and a delete with the id as shown finds them.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def shown(raw: bytes) -> str:
    """Returns the id as listings show it; UTF-8 is shown unchanged."""
    return raw.decode("utf-8", "backslashreplace")


def is_damaged(raw: bytes) -> bool:
    """Returns True if the id is not UTF-8."""
    return shown(raw).encode() != raw


def damaged_id(session: str) -> bytes | None:
    """Returns the id that is not UTF-8 and that listings show as `session`, or None if there can be none."""
    if "\\x" not in session:
        return None
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), session.encode())
    return raw if is_damaged(raw) and shown(raw) == session else None
