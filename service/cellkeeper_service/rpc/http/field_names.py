"""What the fields of the service's messages, which handlers refuse by name, are called in JSON requests.

HTTP clients do not see "positions[0]", but the `position` that they sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ITEM = r"((?:items\[\d+\]\.)?)"
_OF_ALL = (
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


class FieldNames:
    """The names of one kind of request."""

    def __init__(self, own: Sequence[tuple[str, str]] = (), *, one_item: bool = False) -> None:
        """own: patterns of fields that are called otherwise than in most requests, and the names. one_item: the request
        is the only item of the message."""
        self._rules = [(re.compile(pattern), name) for pattern, name in (*own, *_OF_ALL)]
        self._before = "items[0]." if one_item else ""

    def name(self, field: str) -> str:
        """Returns the name in the request of a message's field."""
        field = field.removeprefix(self._before)
        for pattern, name in self._rules:
            if found := pattern.fullmatch(field):
                return found.expand(name)
        return field


_GENERATION = (r"position\.generation", "generation")
"""Of requests that name the generation that they end."""
COMMON = FieldNames()
OPEN = FieldNames([(r"position(\..*|)", r"expect\1")])
CARRY_OVER = FieldNames([_GENERATION])
RESTART = FieldNames([_GENERATION], one_item=True)
ONE_ITEM = FieldNames(one_item=True)
