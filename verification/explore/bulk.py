"""A call with several items, as the client makes it: those that may succeed yet are sent again one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .call import call_name
from .scope import Many


@dataclass(eq=False)
class Bulk:
    """What is left of a call with several items. left: the items without an outcome. apart: the call was answered."""

    left: list[Any]
    apart: bool = False

    def can_send(self, waiting: set[str]) -> list[str]:
        """Returns what could be sent now. waiting: the names of what was sent and is not answered."""
        if self.apart:
            return [name for item in self.left if (name := call_name(item)) not in waiting]
        return [] if waiting else [call_name(Many(tuple(self.left)))]

    def named(self, what: str) -> list[Any]:
        """Returns the items that are sent under this name."""
        return [item for item in self.left if call_name(item) == what] if self.apart else list(self.left)
