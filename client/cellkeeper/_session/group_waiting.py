"""The calls of a group that wait: steps and holds in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from .group_call import GroupCall
from .hold import GroupHold

_LOOK_AHEAD = 64  # calls; further ones wait for some of these to start, so that a reply costs the same for any number


class WaitingGroupCalls(deque["GroupCall | GroupHold"]):
    """Calls until their members are free, and holds until their end."""

    __slots__ = ()

    @property
    def steps(self) -> list[GroupCall]:
        return [one for one in self if isinstance(one, GroupCall)]

    def start(self, busy: NDArray[np.bool_], begin: Callable[[GroupCall], None]) -> None:
        """Starts the calls, and grants the holds, whose members no earlier one uses or waits for.

        busy: [rows], whether a call uses the member; `begin` changes it. Holds do not wait for each other.
        """
        taken = busy.copy()
        held = np.zeros_like(taken)
        for one in list(islice(self, _LOOK_AHEAD)):
            rows = one.members.rows
            free = not taken[rows].any()
            if isinstance(one, GroupHold):
                held[rows] = True
                if free:
                    one.grant()
            elif free and not held[rows].any():
                self.remove(one)
                begin(one)
                taken[rows] = busy[rows]
            else:
                taken[rows] = True

    def grant_holds(self) -> None:
        for one in self:
            if isinstance(one, GroupHold):
                one.grant()
