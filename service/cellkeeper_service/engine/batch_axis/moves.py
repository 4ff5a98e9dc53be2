"""Rules for operators that move values: reshape, take parts, join, look up."""

from __future__ import annotations

from math import prod

from .call import Call, CannotTell, Couples
from .placement import BATCH, Axis, Free, Placement, Rows, axis_of


def reshape(call: Call) -> list[Placement]:
    """For reshapes, which keep the order of values, so outer and inner too. The sessions' axis may vanish or return."""
    placement = call.inputs[0]
    if not isinstance(placement, Rows):
        return [placement]
    if axis_of(placement, call.result()) is not None:
        return [Rows(placement.outer, placement.inner)]
    name = call.node.name or call.node.output[0]
    return [Rows(placement.outer, placement.inner, placement.reshaped or f"{name!r} ({call.op})")]


def transpose(call: Call) -> list[Placement]:
    axis = call.first_axis()
    order = call.attribute("perm") or list(range(len(call.shape())))[::-1]
    return call.along(axis, list(order).index(axis.number))


def concat(call: Call) -> list[Placement]:
    (along,) = call.one_of([call.attribute("axis", 1)], call.result())
    axes = [call.axis(number) for number in range(len(call.inputs))]
    found = next(axis for axis in axes if axis is not None)
    if any(axis not in (None, found) for axis in axes):
        raise Couples("joins values of different sessions: its inputs have the batch along different axes")
    if along != found.number:
        return call.along(found)
    if any(call.shape(number)[along] != call.shape(axes.index(found))[along] for number in range(len(axes))):
        raise Couples(f"adds other rows to the sessions: it joins along axis {along}, which is the batch")
    return call.along(Axis(along, found.before * len(axes), found.after))


def slice_(call: Call) -> list[Placement]:
    axis = call.first_axis()
    shape = call.shape()
    starts = call.attribute("starts")
    axes = call.numbers("axes", 3)
    if axes is None:
        axes = list(range(len(shape) if starts is None else len(starts)))
    if axis.number not in call.one_of(axes, shape):
        return call.along(axis)
    at = [value % len(shape) for value in axes].index(axis.number)
    steps = call.constant(4) if starts is None else None
    if steps is not None and steps[at] < 0:
        raise Couples(f"reverses axis {axis.number}, which is the batch")
    if call.result()[axis.number] == shape[axis.number]:
        return call.along(axis)
    raise _partial(axis)


def split(call: Call) -> list[Placement]:
    axis = call.first_axis()
    (along,) = call.one_of([call.attribute("axis", 0)], call.shape())
    if along != axis.number:
        return call.along(axis)
    before, left = divmod(axis.before, len(call.made))
    if left or len({call.result(number)[along] for number in range(len(call.made))}) > 1:
        raise _partial(axis)
    return call.along(Axis(along, before, axis.after))


def gather(call: Call) -> list[Placement]:
    data, indices = call.axis(0), call.axis(1)
    (along,) = call.one_of([call.attribute("axis", 0)], call.shape())
    if data is not None and indices is not None:
        raise Couples("looks up values of one session by indices of another")
    if indices is not None:
        return call.along(indices, along + indices.number)
    data = call.first_axis()
    if along != data.number:
        return call.along(data, data.number if data.number < along else data.number - 1 + len(call.shape(1)))
    if prod(call.shape(1)) % BATCH == 0:  # an index for each session, which may be its own
        raise CannotTell
    raise _partial(data)


def gather_elements(call: Call) -> list[Placement]:
    """Also for ScatterElements, whose result has the shape of its first input."""
    axes = [call.axis(number) for number in range(len(call.inputs))]
    found = next(axis for axis in axes if axis is not None)
    (along,) = call.one_of([call.attribute("axis", 0)], call.shape())
    if along == found.number or any(axis not in (None, found) for axis in axes):
        raise CannotTell
    return call.along(found)


def one_hot(call: Call) -> list[Placement]:
    axis = call.only_axis()
    (along,) = call.one_of([call.attribute("axis", -1)], call.result())
    return call.along(axis, axis.number + (along <= axis.number))


def pad(call: Call) -> list[Placement]:
    axis = call.only_axis()
    shape = call.shape()
    pads = call.numbers("pads", 1)
    axes = call.constant(3) or list(range(len(shape)))
    if pads is None or len(pads) != 2 * len(axes):
        raise CannotTell
    for at, value in enumerate(axes):
        if value % len(shape) == axis.number and (pads[at] or pads[at + len(axes)]):
            raise Couples(f"shifts axis {axis.number}, which is the batch")
    return call.along(axis)


def tile(call: Call) -> list[Placement]:
    axis = call.first_axis()
    repeats = call.result()[axis.number] // call.shape()[axis.number]
    return call.along(Axis(axis.number, axis.before * repeats, axis.after))


def same_place(call: Call) -> list[Placement]:
    """For operators such as DepthToSpace, which keep axis 0 and change others."""
    axis = call.only_axis()
    if axis.number != 0:
        raise CannotTell
    return call.along(axis)


def resize(call: Call) -> list[Placement]:
    axis = call.only_axis()
    if call.result()[axis.number] != call.shape()[axis.number]:
        raise CannotTell
    return call.along(axis)


def triangle(call: Call) -> list[Placement]:
    """For Trilu, which sets values to zero by their position."""
    return call.along(call.only_axis())


def reverse_sequence(call: Call) -> list[Placement]:
    axis = call.first_axis()
    if axis.number == call.attribute("time_axis", 0):
        raise Couples(f"reverses axis {axis.number}, which is the batch")
    lengths = call.inputs[1]
    if not isinstance(lengths, Free) and (axis.number != call.attribute("batch_axis", 1) or call.axis(1) is None):
        raise CannotTell
    return call.along(axis)


def _partial(axis: Axis) -> Exception:
    """Returns the error for taking part of the sessions' axis. If the axis holds more, the part may be anything."""
    if not axis.plain:
        return CannotTell()
    return Couples(f"selects certain sessions of the batch, along axis {axis.number}")
