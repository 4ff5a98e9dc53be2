"""What the clients of several scopes do."""

from __future__ import annotations

from ..scope import CarryOver, Delete, Follow, Fork, GetState, GroupSteps, Op, Open, Peek, Reset, SetState, Start, steps
from ..sequential_model import Inputs


def opened(*values: int | Inputs, window: int = 1, session: str = "s") -> tuple[Op, ...]:
    """Returns a script that opens a session and steps it."""
    return (Open(session), steps(session, *values, window=window))


RECREATED = (*opened(11), Reset("s"), steps("s", 12), Delete("s"), *opened(13))
TWO_SESSIONS = (opened(11, 12), opened(21, 22, session="r"))
GROUPED: tuple[Op, ...] = (Open("s"), Open("r"), GroupSteps(("s", "r"), ((11, 21), (12, 22))))
TWO_STEPS_EACH = (*opened(11, 12), Reset("s"), steps("s", 13, 14), Delete("s"), *opened(15, 16))
SEQUENCE = (Start("s", 11), Follow("s", 12, 1), Follow("s", 13, 2))
FORKED = (*opened(11), Fork("s", "t"), steps("t", 12), steps("s", 13))
READING: tuple[Op, ...] = (Peek("s", 91), GetState("s"))
ON_ONE_SLOT = (opened(11), opened(21, session="r"))

BOTH_AND_NEW = (b"\1\2", b"\2")
CARRIED: tuple[Op, ...] = (*opened(11, 12), CarryOver("s", 2), steps("s", 13))
BACK: tuple[Op, ...] = (CarryOver("s", 1), steps("s", 14))

SET: tuple[Op, ...] = (*opened(11), SetState("s", (81, 82)), steps("s", 12))
