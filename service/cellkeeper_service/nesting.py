"""How deep the lists and objects of a JSON text are nested, found out without recursion.

Python's parser recurses, and raises RecursionError where its stack ends. Python's garbage collector may run at any
depth before that: finalizers that it calls there, of objects that have nothing to do with the text, have no stack left
and fail. So a text that is nested too deeply must not reach the parser.
"""

from __future__ import annotations

import numpy as np

MAX_DEPTH = 100
TOO_DEEP = f"lists or objects that are nested deeper than {MAX_DEPTH}"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(text: bytes) -> bool:
    """Returns True if a JSON text in UTF-8 is nested deeper than MAX_DEPTH before its end, or before the first place
    where it is not JSON."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    without_escapes = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # what remains of quotes are the ends of strings
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = np.frombuffer(outside_strings.translate(None, _NO_BRACKETS), np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(2 * opening.astype(np.int8) - 1, dtype=np.int64).max(initial=0)) > MAX_DEPTH
