"""What a Scan makes of a tensor's sessions: one slice of it for each iteration, or a stack of those."""

from __future__ import annotations

from .placement import UNKNOWN, Axis, Placement, Rows, Shape, axis_of, rows_at


def sliced(placement: Placement, shape: Shape | None, axis: int) -> tuple[Placement, Shape | None]:
    """Returns the placement and shape of a slice. axis: the one that the Scan iterates over, which the slice lacks.

    Nothing is known if that axis holds the sessions: what an iteration leaves to the next is then another session's.
    """
    if shape is None:
        return (UNKNOWN if isinstance(placement, Rows) else placement), None
    axis %= len(shape)
    rest = (*shape[:axis], *shape[axis + 1 :])
    if not isinstance(placement, Rows):
        return placement, rest
    found = axis_of(placement, shape)
    if found is None or found.number == axis:
        return UNKNOWN, rest
    return rows_at(Axis(found.number - (found.number > axis), found.before, found.after), rest), rest


def stacked(placement: Placement, shape: Shape | None, axis: int, steps: int) -> tuple[Placement, Shape | None]:
    """Returns the placement and shape of what the iterations return, one after another along this new axis."""
    if shape is None:
        return (UNKNOWN if isinstance(placement, Rows) else placement), None
    axis %= len(shape) + 1
    whole = (*shape[:axis], steps, *shape[axis:])
    if not isinstance(placement, Rows):
        return placement, whole
    found = axis_of(placement, shape)
    if found is None:
        return UNKNOWN, whole
    return rows_at(Axis(found.number + (found.number >= axis), found.before, found.after), whole), whole
