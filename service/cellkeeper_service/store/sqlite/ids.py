"""Session ids of rows that are not UTF-8: no client can have sent them, so the file was damaged, or edited.

They are shown with their bad bytes escaped ("pump-\\xff"), and a delete of the shown id finds them.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def shown(raw: bytes) -> str:
    """The id as it is listed; of UTF-8 the text itself."""
    return raw.decode("utf-8", "backslashreplace")


def is_damaged(raw: bytes) -> bool:
    """Whether the id is not UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return True
    return False


def damaged_id(session: str) -> bytes | None:
    """The id that is not UTF-8 and is shown as `session`, if there can be one."""
    if "\\x" not in session:
        return None
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), session.encode())
    return raw if is_damaged(raw) and shown(raw) == session else None
