"""What fields are called in JSON requests.

Handlers refuse the fields of messages, which HTTP clients do not see: "positions[0]" is the `position` that they sent.
"""

from __future__ import annotations

import re

ALONE = "items[0]."
"""Before a field of a message's only item, which is the whole request in JSON."""
_ITEM = r"((?:items\[\d+\]\.)?)"
_NAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"{_ITEM}(?:shape|steps\[0\])", r"\1inputs"),
        (rf"{_ITEM}named_inputs(\[.*\]|)(?:\.shape)?", r"\1inputs\2"),
        (r"rollout_steps", "steps"),
        (r"rollout_inputs", "known"),
        (r"rollout_named_inputs(\[.*\]|)(?:\.shape)?", r"known\1"),
        (r"positions\[0\](\.step|)", r"position\1"),
        (r"acked\[0\]", "acked"),
        (r"(?:sessions\[0\]|source)", "session"),
        (r"state(\[.*\]|)", r"states\1"),
    )
]


def json_name(field: str, *, alone: bool) -> str:
    """Returns the name in a JSON request of a message's field. alone: the request is the message's only item."""
    if alone:
        field = field.removeprefix(ALONE)
    for pattern, name in _NAMES:
        if found := pattern.fullmatch(field):
            return found.expand(name)
    return field
