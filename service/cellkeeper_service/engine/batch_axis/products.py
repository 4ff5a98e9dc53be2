"""Rules for operators that multiply by weights: matrix products, convolutions, recurrent layers."""

from __future__ import annotations

from .call import Call, CannotTell, Couples
from .placement import FREE, Axis, Placement

SUMS = "sums over its inputs' batch axis"
MEET = "multiplies values of one session with those of another"


def mat_mul(call: Call) -> list[Placement]:
    """For MatMul, and MatMulInteger, whose zero points are inputs 2 and 3."""
    call.expect_free(2, 3)
    places = []  # of the sessions' axis in the result, counted from its end
    for number, axis in enumerate((call.axis(0), call.axis(1))):
        if axis is None:
            continue
        rank = len(call.shape(number))
        from_end = rank - axis.number
        if rank == 1 or from_end == (1 if number == 0 else 2):
            raise Couples(SUMS)
        other = len(call.shape(1 - number))
        place = from_end - (other == 1 and (number == 0 or from_end > 1))
        places.append((place, axis.before, axis.after, from_end > 2))
    if len(places) == 2 and (places[0] != places[1] or not places[0][3]):
        raise Couples(MEET)
    place, before, after, _ = places[0]
    return call.along(Axis(len(call.result()) - place, before, after))


def gemm(call: Call) -> list[Placement]:
    left, right, added = call.axis(0), call.axis(1), call.axis(2)
    found = []
    if left is not None:
        if left.number != (1 if call.attribute("transA", 0) else 0):
            raise Couples(SUMS)
        found.append(Axis(0, left.before, left.after))
    if right is not None:
        if right.number != (0 if call.attribute("transB", 0) else 1):
            raise Couples(SUMS)
        found.append(Axis(1, right.before, right.after))
    if added is not None:
        found.append(Axis(added.number + 2 - len(call.shape(2)), added.before, added.after))
    if any(axis != found[0] for axis in found):
        raise Couples(MEET)
    return call.along(found[0])


def einsum(call: Call) -> list[Placement]:
    equation = call.attribute("equation", b"").decode().replace(" ", "")
    taken, arrow, given = equation.partition("->")
    if not arrow or "." in equation:
        raise CannotTell
    found = set()
    for number, letters in enumerate(taken.split(",")):
        axis = call.axis(number)
        if axis is not None:
            found.add((letters[axis.number], axis.before, axis.after))
    if len(found) > 1:
        raise Couples(MEET)
    ((letter, before, after),) = found
    if letter not in given:
        raise Couples(SUMS)
    return call.along(Axis(given.index(letter), before, after))


def convolution(call: Call) -> list[Placement]:
    """For Conv, ConvTranspose and ConvInteger: [N, C, ...]."""
    call.expect_free(*range(1, len(call.inputs)))
    return _windowed(call, list(call.shape(1)[2:]), channels_apart=False)


def pooling(call: Call) -> list[Placement]:
    """For pooling of [N, C, ...], each channel by itself."""
    return _windowed(call, call.attribute("kernel_shape", []), channels_apart=True)


def _windowed(call: Call, kernel: list[int], *, channels_apart: bool) -> list[Placement]:
    axis = call.first_axis()
    if axis.number == 1 and not channels_apart:
        if call.attribute("group", 1) != 1:
            raise CannotTell
        raise Couples("sums over its input's channels, axis 1, which is the batch")
    if axis.number >= 2:
        at, rank = axis.number - 2, len(kernel)
        pads = call.attribute("pads", [0] * 2 * rank)
        strides = call.attribute("strides", [1] * rank)
        if call.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise CannotTell
        if kernel[at] != 1 or strides[at] != 1 or pads[at] or pads[at + rank]:
            raise Couples(f"moves a window over axis {axis.number}, which is the batch")
    return call.along(axis)


def recurrent(call: Call) -> list[Placement]:
    """For LSTM, GRU, RNN: X [T, B, F], states [directions, B, H]; with layout 1 [B, T, F] and [B, directions, H]."""
    call.expect_free(1, 2, 3, *range(7, len(call.inputs)))
    first = bool(call.attribute("layout", 0))
    sequence, state, each = (0, 0, 0) if first else (1, 1, 2)
    found = set()
    for number, expected in ((0, sequence), (4, 0), (5, state), (6, state)):
        axis = call.axis(number)
        if axis is None:
            continue
        if number == 0 and axis.number == 1 - sequence:
            raise Couples(f"iterates over axis {axis.number}, which is the batch")
        if axis.number != expected:
            raise Couples(f"treats axis {axis.number} of {call.node.input[number]}, the batch, as another axis")
        found.add((axis.before, axis.after))
    if len(found) > 1:
        raise Couples("combines values of different sessions: its inputs hold them in another order")
    ((before, after),) = found
    return [
        call.placed(Axis(each if number == 0 else state, before, after), number) if name else FREE
        for number, name in enumerate(call.node.output)
    ]
