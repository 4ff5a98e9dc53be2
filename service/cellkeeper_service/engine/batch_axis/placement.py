"""What is known about a tensor: where its sessions lie, that it holds none, or that they are mixed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

Shape = tuple[int, ...]

BATCH = 1_000_003
"""The batch size for which shapes are inferred: a large prime, so that no other size is a multiple of it."""
STEPS = 997
"""The number of time steps for which shapes are inferred."""


@dataclass(frozen=True)
class Free:
    """The tensor holds no value of any session."""


@dataclass(frozen=True)
class Rows:
    """Each row holds values of one session only. In row-major order the tensor is [outer, BATCH, inner].

    reshaped: the node after which no single axis holds the sessions; "" if one does.
    """

    outer: int
    inner: int
    reshaped: str = field(default="", compare=False)


@dataclass(frozen=True)
class Unknown:
    """Nothing is known: the tensor depends on an operator without a rule, or on a shape that cannot be inferred."""


@dataclass(frozen=True)
class Coupled:
    """A session's values depend on another session's. node: the first that does this. why: what it does, in words."""

    node: str
    why: str


Placement = Free | Rows | Unknown | Coupled
FREE, UNKNOWN = Free(), Unknown()


@dataclass(frozen=True)
class Axis:
    """The axis that holds the sessions. Its length is before * BATCH * after, in this order."""

    number: int
    before: int = 1
    after: int = 1

    @property
    def plain(self) -> bool:
        """Whether it holds nothing but the sessions."""
        return self.before == self.after == 1


def axis_of(rows: Rows, shape: Shape) -> Axis | None:
    """Returns the axis that holds the sessions; None if no single axis does."""
    if prod(shape) != rows.outer * BATCH * rows.inner:
        return None
    for number, size in enumerate(shape):
        before, left_before = divmod(rows.outer, prod(shape[:number]))
        after, left_after = divmod(rows.inner, prod(shape[number + 1 :]))
        if not left_before and not left_after and size == before * BATCH * after:
            return Axis(number, before, after)
    return None


def rows_at(axis: Axis, shape: Shape) -> Rows:
    """Returns the placement of a tensor of this shape with its sessions along this axis."""
    return Rows(prod(shape[: axis.number]) * axis.before, axis.after * prod(shape[axis.number + 1 :]))


def join(one: Placement, other: Placement) -> Placement:
    """Returns what is known about a tensor that may have either placement."""
    for kind in (Coupled, Unknown):
        for value in (one, other):
            if isinstance(value, kind):
                return value
    if isinstance(one, Rows) and isinstance(other, Rows):
        return one if one == other else UNKNOWN
    return other if isinstance(one, Free) else one
